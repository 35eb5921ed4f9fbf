"""`charlm score --file`: score a file of any size in constant memory."""

import codecs
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO

from rich.progress import Progress

from charlm_client.api.long_text import ScoredTokens
from charlm_client.cli.file_progress import progress_of_files, size_of
from charlm_client.cli.input_file import opened, text_pieces
from charlm_client.cli.rendering import ROW_HEADING, figures, print_json, token_row, totals
from charlm_client.cli.run_call import chosen_model
from charlm_client.cli.score_options import ScoreOptions
from charlm_client.client import Client
from charlm_client.types import Score

MAX_SHOWN_BYTES = 1 << 16  # of a file that is shown in colors


def is_short(file: Path) -> bool:
    """Whether the file is short enough to show every character in color."""
    return file.is_file() and file.stat().st_size <= MAX_SHOWN_BYTES


async def score_file(
    client: Client, path: Path, options: ScoreOptions, *, timeout_s: float
) -> None:
    """Print a row for each token, or JSON for each message of them; then the total."""
    model = await chosen_model(client, options.model)
    with opened(path) as file, progress_of_files() as progress:
        has_rows = not options.as_json and not options.total_only
        text = FileText(file, path, progress, keeps_text=has_rows)
        stream = client.stream_score(
            text.pieces(),
            model=model,
            context=options.context,
            returns="total" if options.total_only else "details",
            replace_unknown=options.replace_unknown,
            timeout_s=timeout_s,
        )
        rows = _TokenRows(text) if has_rows else None
        async for tokens in stream:
            if rows is None:
                print_json(asdict(tokens))
            else:
                rows.print(tokens)
        if rows is not None:
            rows.print_last()
    assert stream.total is not None
    _print_total(stream.total, options, {"model": model, "model_digest": stream.model_digest})


def _print_total(total: Score, options: ScoreOptions, about: dict[str, str]) -> None:
    if options.as_json:
        print_json(figures(total) | about)
    else:
        # Rows are for programs, so the totals go to the standard error.
        print(totals(total), file=sys.stdout if options.total_only else sys.stderr)


class FileText:
    """The bytes of a file as they are sent, and its characters until they are shown."""

    def __init__(self, file: BinaryIO, path: Path, progress: Progress, *, keeps_text: bool) -> None:
        self._pieces, self._progress, self._keeps_text = text_pieces(file), progress, keeps_text
        self._task = progress.add_task("", total=size_of(path))
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._text = ""

    def pieces(self) -> Iterator[bytes]:
        for data in self._pieces:
            if self._keeps_text:
                self._text += self._decoder.decode(data)
            yield data
            self._progress.advance(
                self._task, len(data)
            )  # the next piece is requested after this one was sent

    def take(self, num: int) -> str:
        """Remove and return the next characters."""
        taken, self._text = self._text[:num], self._text[num:]
        return taken

    def take_rest(self) -> str:
        return self.take(len(self._text)) + self._decoder.decode(b"", final=True)


class _TokenRows:
    """Prints a row for each token, delayed by one: a token ends where the next one begins."""

    def __init__(self, text: FileText) -> None:
        self._text = text
        self._waiting: tuple[int, float, int] | None = None  # offset, log-prob, rank
        print(ROW_HEADING)

    def print(self, tokens: ScoredTokens) -> None:
        known = [] if self._waiting is None else [self._waiting]
        known += zip(tokens.character_offsets, tokens.logprobs, tokens.ranks, strict=True)
        *complete, self._waiting = known
        start = known[0][0]
        text = self._text.take(self._waiting[0] - start)
        ends = [offset - start for offset, _, _ in known[1:]]
        rows = [
            token_row(offset, text[offset - start : end], logprob, rank)
            for (offset, logprob, rank), end in zip(complete, ends, strict=True)
        ]
        sys.stdout.write("".join(f"{row}\n" for row in rows))

    def print_last(self) -> None:
        if self._waiting is not None:
            offset, logprob, rank = self._waiting
            print(token_row(offset, self._text.take_rest(), logprob, rank))
