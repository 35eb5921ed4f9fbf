"""Tokens to text that may be shown: exact bytes, complete characters, and their tokens."""

import codecs
from dataclasses import dataclass
from itertools import accumulate, pairwise

from charlm_server.engine.stop_sequences import StopAutomaton, StopMatch, StopMatcher


class Utf8Assembler:
    """Bytes in any cuts -> text of complete characters; equal to decoding the whole at once.

    An incomplete tail is held for its continuation; bytes that begin no character become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes, *, is_last: bool = False) -> str:
        return self._decoder.decode(data, is_last)


class CharacterCounter:
    """Counts the complete characters before each token of a text."""

    def __init__(self) -> None:
        self._utf8 = Utf8Assembler()
        self._num_characters = 0

    def feed(self, tokens: list[bytes]) -> list[int]:
        """Where each of the next tokens begins."""
        offsets = []
        for token in tokens:
            offsets.append(self._num_characters)
            self._num_characters += len(self._utf8.feed(token))
        return offsets

    def finish(self) -> int:
        """How many characters there were; each invalid byte sequence counts as U+FFFD."""
        return self._num_characters + len(self._utf8.feed(b"", is_last=True))


@dataclass(frozen=True, slots=True)
class Release:
    """What may be shown; `num_tokens` tokens lie wholly within the bytes shown so far."""

    data: bytes
    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Stopped:
    """A stop sequence was met, by the `num_tokens`-th of the tokens that were fed last."""

    stop: bytes
    num_tokens: int


class TextAssembler:
    """One continuation's text: holds back what may become a stop sequence, and cuts at one.

    A token is released once all of its bytes are, so that tokens never reveal text held back.
    `max_tokens` bounds the tokens of one release.
    """

    def __init__(
        self,
        stops: StopAutomaton | None = None,
        *,
        include_stop: bool = False,
        max_tokens: int | None = None,
    ) -> None:
        self._matcher = StopMatcher(stops) if stops is not None else None
        self._include_stop, self._max_tokens = include_stop, max_tokens
        self._utf8 = Utf8Assembler()
        self._held = b""
        self._held_lengths: list[int] = []  # bytes not yet shown of each token not yet released

    def feed(self, tokens: list[bytes]) -> tuple[list[Release], Stopped | None]:
        """Add tokens; after a stop the text is at its end and must not be fed again."""
        new = b"".join(tokens)
        if self._matcher is None and self._max_tokens is None:
            return [Release(new, self._utf8.feed(new), len(tokens))], None
        self._held += new
        self._held_lengths += [len(token) for token in tokens]
        if self._matcher is None:
            return self._show(len(self._held)), None
        self._matcher.feed(new)
        if self._matcher.found is not None:
            return self._stop(self._matcher.found, self._matcher.num_read, tokens)
        return self._show(len(self._held) - self._matcher.num_held), None

    def finish(self) -> list[Release]:
        """Nothing follows: show all that was held back."""
        return self._show(len(self._held), is_last=True)

    def _stop(
        self, match: StopMatch, num_read: int, tokens: list[bytes]
    ) -> tuple[list[Release], Stopped]:
        end = match.end if self._include_stop else match.start
        releases = self._show(end - (num_read - len(self._held)), is_last=True)
        ends = accumulate(map(len, tokens), initial=num_read - sum(map(len, tokens)))
        return releases, Stopped(match.stop, sum(start < match.end for start in list(ends)[:-1]))

    def _show(self, num_bytes: int, *, is_last: bool = False) -> list[Release]:
        """Show the first held bytes, with the tokens that end within them."""
        ends = self._take_ends(num_bytes)
        size = self._max_tokens or len(ends) or 1
        groups = [ends[first : first + size] for first in range(0, len(ends), size)] or [[]]
        cuts = [0, *(group[-1] for group in groups[:-1]), num_bytes]
        pieces = [self._held[start:end] for start, end in pairwise(cuts)]
        self._held = self._held[num_bytes:]
        texts = [self._utf8.feed(piece) for piece in pieces]
        texts[-1] += self._utf8.feed(b"", is_last=is_last)
        return [
            Release(piece, text, len(group))
            for piece, text, group in zip(pieces, texts, groups, strict=True)
        ]

    def _take_ends(self, num_bytes: int) -> list[int]:
        """Where the held tokens end that end within these bytes; they are held no longer."""
        ends: list[int] = []
        for end in accumulate(self._held_lengths):
            if end > num_bytes:
                break
            ends.append(end)
        del self._held_lengths[: len(ends)]
        if self._held_lengths:
            self._held_lengths[0] -= num_bytes - (ends[-1] if ends else 0)
        return ends
