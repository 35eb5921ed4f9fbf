"""The vocabulary comes from the training part alone, and both parts become tokens on disk."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from charlm_model.text.vocabulary import ByteVocabulary
from charlm_training.corpus.dataset import Data, DataOptions, Encoder
from charlm_training.corpus.vocabularies import build_vocabulary
from charlm_training.errors import CorpusTooSmall, InvalidOption

Read = Callable[..., Data]


def test_a_stream_is_its_text_after_the_end_of_text(read: Read) -> None:
    data = read("abcdefghij" * 10)

    assert data.train.ids_N[0] == 0
    assert data.vocabulary.decode(data.train.ids_N.tolist()) == "abcdefghij" * 9
    assert data.vocabulary.decode(data.validation.ids_N.tolist()) == "abcdefghij"
    assert isinstance(data.train.ids_N, np.memmap)


def test_every_line_begins_and_ends_with_the_end_of_text(read: Read) -> None:
    data = read("ab\n\ncd\nab\n" * 5, unit="line")

    ids = data.train.ids_N.tolist()
    a, b, c, d = data.vocabulary.encode("abcd")
    assert ids[:10] == [0, a, b, 0, c, d, 0, a, b, 0]
    assert ids[-1] == 0


def test_a_line_end_is_no_character_of_the_line_vocabulary(read: Read) -> None:
    data = read("ab\ncd\n" * 5, unit="line")

    assert data.vocabulary.size == 5


def test_unknown_characters_of_the_validation_part_are_replaced_and_reported(read: Read) -> None:
    data = read("ab " * 30 + "xyzab a", validation_fraction=0.07)

    assert data.vocabulary.size == 4
    assert data.validation.num_unknown == 3
    assert any("3 of 7 validation characters" in notice for notice in data.notices())


def test_characters_and_bytes_are_counted_per_part(read: Read) -> None:
    data = read("말a" * 50)

    assert (data.train.num_characters, data.train.num_bytes) == (90, 180)
    assert data.train.tokens_per_character == 1


@pytest.mark.parametrize(("unit", "complaint"), [("stream", "no character"), ("line", "lines")])
def test_a_text_of_nothing_is_refused(unit: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusTooSmall, match=complaint):
        Encoder(ByteVocabulary(), unit).write([], tmp_path / "tokens")


def test_pieces_are_those_of_the_whole_text_however_it_is_read(tmp_path: Path) -> None:
    text = "the quick brown fox jumps over the lazy dog. " * 20
    vocabulary = build_vocabulary("sentencepiece", [text], 300)
    chunks = [text[start : start + 7] for start in range(0, len(text), 7)]

    part = Encoder(vocabulary, "stream").write(chunks, tmp_path / "tokens")

    assert part.ids_N.tolist() == [0, *vocabulary.encode(text)]


@pytest.mark.parametrize("vocabulary", ["char", "byte", "sentencepiece"])
@pytest.mark.parametrize("unit", ["stream", "line"])
def test_tokens_of_every_vocabulary_decode_to_the_text(
    read: Read, vocabulary: str, unit: str
) -> None:
    options: dict[str, Any] = {"vocab_size": 300} if vocabulary == "sentencepiece" else {}
    text = "the cat sat on the mat 😀\nthe dog ran 말\n" * 40

    data = read(text, vocabulary=vocabulary, unit=unit, **options)

    expected = text if unit == "stream" else text.replace("\n", "")
    parts = [data.train.ids_N, data.validation.ids_N]
    assert "".join(data.vocabulary.decode(ids.tolist()) for ids in parts) == expected


def test_the_beginning_of_a_part_has_its_share_of_characters(read: Read) -> None:
    part = read("말a" * 50).train

    first = part.first(30)

    assert (len(first.ids_N), first.num_characters, first.num_bytes) == (31, 30, 60)
    assert part.first(1000) is part


def test_the_beginning_of_lines_ends_with_a_whole_line(read: Read) -> None:
    part = read("abcd\nef\n" * 20, unit="line").train

    assert part.first(7).ids_N.tolist() == part.ids_N[:6].tolist()
    assert part.first(2).ids_N.tolist() == part.ids_N.tolist()


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"--unit is 'page'.*stream, line"):
        DataOptions(unit="page")


def test_an_unknown_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"--vocabulary is 'word'.*char, byte, sentencepiece"):
        build_vocabulary("word", ["text"], None)


@pytest.mark.parametrize("kind", ["char", "byte"])
def test_a_size_is_refused_where_there_is_none_to_choose(kind: str) -> None:
    with pytest.raises(InvalidOption, match="--vocab-size is 500"):
        build_vocabulary(kind, ["text"], 500)


def test_a_number_of_pieces_out_of_range_is_refused() -> None:
    with pytest.raises(InvalidOption, match="300 to 8192"):
        build_vocabulary("sentencepiece", ["text"], 10)
