"""The command `charlm compare`."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from charlm_client.api.comparison import Comparison
from charlm_client.cli.input_file import read, read_file
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Color,
    ReplaceUnknown,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import console, plain_table, print_json, visible
from charlm_client.cli.run_call import run_call
from charlm_client.client import Client

_BAR_WIDTH = 20
_TITLE_LENGTH = 72

_FLAGS = {
    "texts": "TEXTS",
    "models": "--model",
    "priors": "--prior",
}


def compare(
    texts: Annotated[
        list[str] | None, typer.Argument(help="Texts to compare; - reads stdin.")
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(help="Model name; repeatable. Default: all loaded models."),
    ] = None,
    prior: Annotated[
        list[float] | None,
        typer.Option(
            help="Prior weight of each --model, in the same order; repeatable. Default: equal."
        ),
    ] = None,
    lines: Annotated[
        Path | None, typer.Option(help="Compare each line of this file as a text.")
    ] = None,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show which model each text most probably came from.

    [dim]charlm compare "Guten Tag" "Good day" --model german --model english
    charlm compare --lines mails.txt --model spam --model ham --prior 1 --prior 9[/dim]
    """
    given = [read(text) for text in texts or ()] + (_lines(lines) if lines else [])

    async def call(client: Client) -> None:
        names = model or [each.name for each in await client.list_models()]
        found = await client.compare(
            given, models=names, priors=prior, replace_unknown=replace_unknown
        )
        if as_json:
            for each in found:
                print_json(asdict(each) | {"best": each.best.model})
        else:
            _show(found, console(color))

    run_call(server, timeout, call, flags=_FLAGS)


def _lines(path: Path) -> list[str]:
    """The lines that have something on them."""
    return [line for line in read_file(path).splitlines() if line]


def _show(found: Sequence[Comparison], out: Console) -> None:
    if out.is_terminal:
        for each in found:
            out.print(Text(_title(each.text), style="bold"))
            out.print(_table(each))
        return
    print("text\tmodel\tposterior\tbits_per_byte\ttotal_logprob_nats")
    for each in found:
        text = json.dumps(each.text, ensure_ascii=False)
        for score in each.scores:
            figures = f"{score.posterior:.6g}\t{score.bits_per_byte:.4f}\t{score.total_logprob:.6f}"
            print(f"{text}\t{score.model}\t{figures}")


def _title(text: str) -> str:
    shown = "".join(map(visible, text)).replace("\n", "")
    return shown if len(shown) <= _TITLE_LENGTH else shown[: _TITLE_LENGTH - 1] + "…"


def _table(comparison: Comparison) -> Table:
    """The most probable model first."""
    table = plain_table()
    for score in sorted(comparison.scores, key=lambda score: -score.posterior):
        bar = "█" * round(_BAR_WIDTH * score.posterior)
        style = "bold" if score is comparison.best else ""
        table.add_row(
            Text(score.model, style=style),
            f"{score.posterior:7.2%}",
            f"{score.bits_per_byte:.3f} bits per byte",
            Text(bar, style="green" if score is comparison.best else "dim"),
        )
    return table
