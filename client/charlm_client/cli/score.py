"""The command `charlm score`."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from charlm_client.api.long_text import DEFAULT_STREAM_TIMEOUT_S
from charlm_client.cli.input_file import read, read_file
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Color,
    Model,
    ReplaceUnknown,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import (
    ROW_HEADING,
    colored,
    console,
    legend,
    print_json,
    token_row,
    totals,
)
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.cli.score_file import is_short, score_file
from charlm_client.cli.score_lines import score_lines
from charlm_client.cli.score_options import ScoreOptions
from charlm_client.client import Client
from charlm_client.types import (
    Score,
)

_FLAGS = {
    "items": "TEXT",
    "items.context": "--context",
}
_FLAGS_OF_LINES = _FLAGS | {"items": "A line of --file"}
_FLAGS_OF_FILE = _FLAGS | {
    "items": "--file",
    "text": "--file",
    "data": "--file",
    "context": "--context",
}


def score(
    text: Annotated[str | None, typer.Argument(help="Text to score; - reads stdin.")] = None,
    file: Annotated[
        Path | None, typer.Option(help="Score a file of any size instead of TEXT; - reads stdin.")
    ] = None,
    lines: Annotated[
        bool, typer.Option("--lines", help="Score each line of --file as a separate text.")
    ] = False,
    total: Annotated[bool, typer.Option("--total", help="Print only the total.")] = False,
    model: Model = "",
    context: Annotated[
        str,
        typer.Option(help="Text that the model reads before the scored text; it is not scored."),
    ] = "",
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show the surprisal (-log2 of the probability) of each character of a text.

    [dim]charlm score "To be or not to bee"
    charlm score --file draft.txt > surprisals.tsv
    charlm score --file large.txt --total
    charlm score --file names.txt --lines[/dim]
    """
    if text is not None and file is not None:
        raise typer.BadParameter(f"A text and --file {file} were both given; give one of them.")
    options = ScoreOptions(
        model=model,
        context=context,
        replace_unknown=replace_unknown,
        total_only=total,
        as_json=as_json,
    )
    if lines:
        if file is None:
            raise typer.BadParameter("--lines needs --file FILE: a file, or - for stdin.")
        run_call(
            server,
            timeout,
            lambda client: score_lines(client, file, options),
            flags=_FLAGS_OF_LINES,
            may_retry=False,
        )
        return
    if text is None and file is None:
        raise typer.BadParameter("Nothing to score: give a TEXT, - for stdin, or --file FILE.")
    out = console(color)
    is_for_eyes = out.is_terminal and not total and not as_json
    if file and not (is_for_eyes and is_short(file)):
        reading = replace(options, total_only=total or is_for_eyes)
        timeout_s = DEFAULT_STREAM_TIMEOUT_S if timeout == TIMEOUT_DEFAULT else timeout
        run_call(
            server,
            timeout,
            lambda client: score_file(client, file, reading, timeout_s=timeout_s),
            flags=_FLAGS_OF_FILE,
            may_retry=False,
        )
        return
    given = read_file(file) if file else read(text or "")
    run_call(
        server,
        timeout,
        lambda client: _score(client, given, options, out),
        flags=_FLAGS_OF_FILE if file else _FLAGS,
    )


async def _score(client: Client, text: str, options: ScoreOptions, out: Console) -> None:
    """Print a text colored by surprisal on a terminal, else a row for each token."""
    model = await chosen_model(client, options.model)
    (result,) = await client.score(
        [text],
        model=model,
        context=options.context,
        details=True,
        replace_unknown=options.replace_unknown,
    )
    if options.as_json:
        print_json(asdict(result) | {"text": text, "model": model})
    elif options.total_only:
        print(totals(result))
    elif out.is_terminal:
        out.print(colored(text, result.character_offsets, result.logprobs))
        out.print(legend())
        out.print(totals(result), style="dim")
    else:
        _print_rows(text, result)


def _print_rows(text: str, result: Score) -> None:
    print(ROW_HEADING)
    ends = [*result.character_offsets[1:], len(text)]
    columns = zip(result.character_offsets, ends, result.logprobs, result.ranks, strict=True)
    for start, end, logprob, rank in columns:
        print(token_row(start, text[start:end], logprob, rank))
    print(totals(result), file=sys.stderr)
