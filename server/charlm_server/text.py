"""From tokens to what may be shown: exact bytes, complete characters, and their tokens."""

import codecs
from dataclasses import dataclass

from charlm_server.stopping import StopAutomaton, StopMatch, StopMatcher


class Utf8Assembler:
    """Bytes in any cuts -> text of complete characters; equal to decoding the whole at once.

    An incomplete tail is held for its continuation; bytes that begin no character become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes, *, is_last: bool = False) -> str:
        return self._decoder.decode(data, is_last)


@dataclass(frozen=True, slots=True)
class Release:
    """What one feeding made safe to show; `num_tokens` lie wholly within the bytes shown so far."""

    data: bytes
    text: str
    num_tokens: int

    def __add__(self, later: "Release") -> "Release":
        return Release(
            self.data + later.data, self.text + later.text, self.num_tokens + later.num_tokens
        )


class TextAssembler:
    """One continuation on its way out: holds back what may become a stop, then cuts at one.

    A token is released once all of its bytes are, so that tokens never tell a held or cut text.
    """

    def __init__(self, stops: StopAutomaton | None = None, *, include_stop: bool = False) -> None:
        self._matcher = StopMatcher(stops) if stops is not None else None
        self._include_stop = include_stop
        self._utf8 = Utf8Assembler()
        self._held = b""
        self._held_lengths: list[int] = []  # bytes not yet shown of each token not yet released

    def feed(self, tokens: list[bytes]) -> tuple[Release, StopMatch | None]:
        """Add tokens; after a match the text is at its end and must not be fed again."""
        new = b"".join(tokens)
        if self._matcher is None:
            return Release(new, self._utf8.feed(new), len(tokens)), None
        self._held += new
        self._held_lengths += [len(token) for token in tokens]
        self._matcher.feed(new)
        match = self._matcher.found
        if match is not None:
            return self._show(self._cut(match, self._matcher.num_read), is_last=True), match
        return self._show(len(self._held) - self._matcher.num_held), None

    def finish(self) -> Release:
        """Nothing follows: show all that was held back."""
        return self._show(len(self._held), is_last=True)

    def _cut(self, match: StopMatch, num_read: int) -> int:
        """Where the text ends, counted from the first held byte."""
        end = match.end if self._include_stop else match.start
        return end - (num_read - len(self._held))

    def _show(self, num_bytes: int, *, is_last: bool = False) -> Release:
        data, self._held = self._held[:num_bytes], self._held[num_bytes:]
        return Release(data, self._utf8.feed(data, is_last=is_last), self._count(num_bytes))

    def _count(self, num_bytes: int) -> int:
        """How many held tokens end within the next `num_bytes`; they are held no longer."""
        num_tokens = 0
        for length in self._held_lengths:
            if length > num_bytes:
                break
            num_tokens, num_bytes = num_tokens + 1, num_bytes - length
        del self._held_lengths[:num_tokens]
        if self._held_lengths:
            self._held_lengths[0] -= num_bytes
        return num_tokens
