"""Reads a corpus: a file, a folder, a pattern or a built-in text.

A corpus is read in chunks, and again for every pass, so it may be larger than memory.
"""

from __future__ import annotations

import codecs
import glob
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from charlm_training.corpus.builtin_texts import BUILTIN_TEXTS
from charlm_training.errors import CorpusIsBinary, CorpusIsNotUtf8, CorpusNotFound

CHUNK_BYTES = 1 << 20
BYTE_ORDER_MARK = "\ufeff"
BUILTIN_PREFIX = "builtin:"


class Source(Protocol):
    """One file of a corpus."""

    @property
    def name(self) -> str: ...

    def open(self) -> BinaryIO: ...


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file on disk."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path)

    def open(self) -> BinaryIO:
        try:
            return self.path.open("rb")
        except OSError as error:
            raise CorpusNotFound(f"Cannot read {self.path}: {error.strerror}.") from error


@dataclass(frozen=True, slots=True)
class TextSource:
    """A text in memory."""

    name: str
    text: str

    def open(self) -> BinaryIO:
        return io.BytesIO(self.text.encode())


@dataclass(slots=True)
class CorpusStats:
    """The sizes and the digest of a corpus, and counts of what was normalized."""

    num_characters: int = 0
    num_bytes: int = 0
    num_carriage_returns: int = 0
    num_byte_order_marks: int = 0
    sha256: str = ""

    def notices(self) -> list[str]:
        """One sentence for everything that was changed."""
        said = []
        if self.num_byte_order_marks:
            said.append(f"Removed a byte order mark from {self.num_byte_order_marks} file(s).")
        if self.num_carriage_returns:
            said.append(f"Turned {self.num_carriage_returns:,} CRLF line ends into LF.")
        return said


@dataclass(frozen=True, slots=True)
class Corpus:
    """Sources in a fixed order; `name` is the name on the command line."""

    name: str
    sources: tuple[Source, ...]
    notices: tuple[str, ...] = field(default=())

    def chunks(self, stats: CorpusStats | None = None) -> Iterator[str]:
        """The normalized text, in pieces of about a megabyte."""
        stats = CorpusStats() if stats is None else stats
        for index, source in enumerate(self.sources):
            last = ""
            for chunk in _read(source, stats):
                last = chunk[-1]
                yield chunk
            # Without this the last line of one file would run into the first of the next.
            if index + 1 < len(self.sources) and last not in ("", "\n"):
                yield "\n"

    def scan(self) -> CorpusStats:
        """Read everything once: sizes, digest, and whether all of it is text."""
        stats, digest = CorpusStats(), hashlib.sha256()
        for chunk in self.chunks(stats):
            data = chunk.encode()
            digest.update(data)
            stats.num_characters += len(chunk)
            stats.num_bytes += len(data)
        stats.sha256 = digest.hexdigest()
        return stats


def open_corpus(name: str) -> Corpus:
    """Open the corpus named on the command line."""
    if name.startswith(BUILTIN_PREFIX):
        return _builtin(name)
    path = Path(name).expanduser()
    if path.is_dir():
        return _folder(name, path)
    if path.exists():
        return Corpus(name, (FileSource(path),))
    return _glob(name, path)


def _builtin(name: str) -> Corpus:
    texts = BUILTIN_TEXTS.get(name.removeprefix(BUILTIN_PREFIX))
    if texts is None:
        known = ", ".join(BUILTIN_PREFIX + key for key in BUILTIN_TEXTS)
        raise CorpusNotFound(f"There is no built-in corpus {name!r}; there are {known}.")
    return Corpus(name, tuple(TextSource(label, text) for label, text in texts()))


def _folder(name: str, folder: Path) -> Corpus:
    """All text files below a folder; binary files are skipped."""
    files = _visible_files(folder)
    texts = [path for path in files if not _looks_binary(path)]
    if not texts:
        raise CorpusNotFound(f"The folder {name} holds no text file ({len(files)} files in all).")
    skipped = len(files) - len(texts)
    notices = (f"Skipped {skipped} binary file(s) in {name}.",) if skipped else ()
    return Corpus(name, tuple(map(FileSource, texts)), notices)


def _visible_files(folder: Path) -> list[Path]:
    return [
        path for path in sorted(folder.rglob("*")) if path.is_file() and _is_visible(path, folder)
    ]


def _is_visible(path: Path, folder: Path) -> bool:
    return not any(part.startswith(".") for part in path.relative_to(folder).parts)


def _glob(name: str, path: Path) -> Corpus:
    files = sorted(Path(found) for found in glob.glob(str(path), recursive=True))
    files = [file for file in files if file.is_file()]
    if not files:
        raise CorpusNotFound(
            f"There is no corpus at {name!r}: no such file or folder, and no file matches it "
            "as a pattern. Try builtin:python-docs, which every Python installation has."
        )
    return Corpus(name, tuple(map(FileSource, files)))


def _looks_binary(path: Path) -> bool:
    with FileSource(path).open() as file:
        return b"\0" in file.read(8192)


def _read(source: Source, stats: CorpusStats) -> Iterator[str]:
    """Decode one source strictly, without its byte order mark, with LF line ends."""
    held, is_first = "", True
    for text in _decode(source):
        if is_first and text:
            stats.num_byte_order_marks += text.startswith(BYTE_ORDER_MARK)
            text, is_first = text.removeprefix(BYTE_ORDER_MARK), False
        text = held + text
        # A CR at the end may be half of a CRLF, so it is joined to the next chunk.
        held = "\r" if text.endswith("\r") else ""
        text = text.removesuffix(held)
        stats.num_carriage_returns += text.count("\r\n")
        if text:
            yield text.replace("\r\n", "\n")
    if held:
        yield held


def _decode(source: Source) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with source.open() as file:
        offset, data = 0, b"start"
        while data:
            data = file.read(CHUNK_BYTES)
            _refuse_binary(data, source, offset)
            pending = len(decoder.getstate()[0])
            try:
                yield decoder.decode(data, final=not data)
            except UnicodeDecodeError as error:
                raise _not_utf8(source, offset - pending + error.start, error) from error
            offset += len(data)


def _refuse_binary(data: bytes, source: Source, offset: int) -> None:
    at = data.find(0)
    if at >= 0:
        raise CorpusIsBinary(
            f"{source.name} is a binary file: it has a NUL byte at offset {offset + at}. "
            "Training needs text in UTF-8; a UTF-16 file must be converted first."
        )


def _not_utf8(source: Source, offset: int, error: UnicodeDecodeError) -> CorpusIsNotUtf8:
    return CorpusIsNotUtf8(
        f"{source.name} is not UTF-8: {error.reason} at byte offset {offset} "
        f"(0x{error.object[error.start]:02x}). Convert the file to UTF-8 or repair that byte."
    )
