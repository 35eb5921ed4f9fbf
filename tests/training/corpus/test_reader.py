"""A corpus is strict UTF-8 text, and what is wrong with one is said in a sentence."""

from pathlib import Path

import pytest

from charlm_training.corpus import reader as corpus_module
from charlm_training.corpus.reader import Corpus, open_corpus
from charlm_training.errors import CorpusIsBinary, CorpusIsNotUtf8, CorpusNotFound


def text_of(corpus: Corpus) -> str:
    return "".join(corpus.chunks())


def write(path: Path, data: bytes | str) -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    path = write(tmp_path / "text.txt", "ein Wörtchen\n\tund 말 😀 noch eins")

    corpus = open_corpus(str(path))

    assert text_of(corpus) == "ein Wörtchen\n\tund 말 😀 noch eins"
    assert corpus.scan().notices() == []


def test_a_scan_counts_characters_and_bytes(tmp_path: Path) -> None:
    path = write(tmp_path / "text.txt", "말 😀")

    stats = open_corpus(str(path)).scan()

    assert (stats.num_characters, stats.num_bytes) == (3, 8)


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 5, 1000])
def test_chunking_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    path = write(tmp_path / "text.txt", "\ufeffa말\r\n😀\r\r\nb\n\r")
    monkeypatch.setattr(corpus_module, "CHUNK_BYTES", chunk_bytes)

    corpus = open_corpus(str(path))

    assert text_of(corpus) == "a말\n😀\r\nb\n\r"
    assert corpus.scan().num_carriage_returns == 2


def test_crlf_and_byte_order_mark_are_normalized_and_reported(tmp_path: Path) -> None:
    path = write(tmp_path / "dos.txt", b"\xef\xbb\xbfone\r\ntwo\r\n")

    corpus = open_corpus(str(path))

    assert text_of(corpus) == "one\ntwo\n"
    assert corpus.scan().notices() == [
        "Removed a byte order mark from 1 file(s).",
        "Turned 2 CRLF line ends into LF.",
    ]


def test_the_digest_is_that_of_the_normalized_text(tmp_path: Path) -> None:
    unix = write(tmp_path / "unix.txt", "one\ntwo\n")
    dos = write(tmp_path / "dos.txt", "\ufeffone\r\ntwo\r\n")

    assert open_corpus(str(unix)).scan().sha256 == open_corpus(str(dos)).scan().sha256


@pytest.mark.parametrize("chunk_bytes", [1, 2, 4, 1000])
def test_invalid_utf8_is_named_with_file_and_offset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    path = write(tmp_path / "latin.txt", "말abc".encode() + b"\xe9 caf\xe9")
    monkeypatch.setattr(corpus_module, "CHUNK_BYTES", chunk_bytes)

    with pytest.raises(CorpusIsNotUtf8, match=r"latin\.txt is not UTF-8: .* offset 6 \(0xe9\)"):
        open_corpus(str(path)).scan()


def test_text_cut_inside_a_character_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "cut.txt", "abc말".encode()[:-1])

    with pytest.raises(CorpusIsNotUtf8, match="offset 3"):
        open_corpus(str(path)).scan()


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "picture.png", b"\x89PNG\0\0\r\n")

    with pytest.raises(CorpusIsBinary, match="NUL byte at offset 4"):
        open_corpus(str(path)).scan()


def test_a_utf16_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    path = write(tmp_path / "windows.txt", "text".encode("utf-16"))

    with pytest.raises(CorpusIsBinary, match="UTF-16 file must be converted"):
        open_corpus(str(path)).scan()


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFound, match=r"no-such\.txt"):
        open_corpus(str(tmp_path / "no-such.txt"))


def test_a_folder_is_all_its_visible_text_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    write(tmp_path / "b" / "2.txt", "second")
    write(tmp_path / "a.txt", "first\n")
    write(tmp_path / ".hidden", "never")
    write(tmp_path / "picture.png", b"\x89PNG\0")
    write(tmp_path / "c.txt", "third")

    corpus = open_corpus(str(tmp_path))

    assert text_of(corpus) == "first\nsecond\nthird"
    assert corpus.notices == (f"Skipped 1 binary file(s) in {tmp_path}.",)


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFound, match="holds no text file"):
        open_corpus(str(tmp_path))


def test_a_glob_is_its_files_in_order(tmp_path: Path) -> None:
    write(tmp_path / "2.txt", "two")
    write(tmp_path / "1.txt", "one")
    write(tmp_path / "3.md", "three")

    assert text_of(open_corpus(str(tmp_path / "*.txt"))) == "one\ntwo"


def test_a_glob_that_matches_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFound, match="no file matches"):
        open_corpus(str(tmp_path / "*.txt"))


def test_a_path_with_pattern_characters_is_a_path_first(tmp_path: Path) -> None:
    path = write(tmp_path / "notes [1].txt", "here")

    assert text_of(open_corpus(str(path))) == "here"


def test_every_python_carries_its_documentation() -> None:
    stats = open_corpus("builtin:python-docs").scan()

    assert stats.num_characters > 300_000


@pytest.mark.slow
def test_every_python_carries_its_sources() -> None:
    stats = open_corpus("builtin:python-source").scan()

    assert stats.num_characters > 3_000_000


def test_an_unknown_builtin_is_answered_with_the_known_ones() -> None:
    with pytest.raises(CorpusNotFound, match="builtin:python-docs, builtin:python-source"):
        open_corpus("builtin:shakespeare")
