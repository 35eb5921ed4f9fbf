"""The command `charlm fill`."""

import re
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from charlm_client.api.inference import FilledGap, Gap
from charlm_client.cli.input_file import read
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
from charlm_client.cli.rendering import console, json_string, plain_table, print_json, quoted
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client

_FLAGS = {
    "left": "The text before the gap",
    "right": "The text after the gap",
    "gap_length": "The length of the gap",
    "max_fillings": "--num",
    "num_particles": "--particles",
    "seed": "--seed",
}


def fill(
    text: Annotated[
        str, typer.Argument(help="Text with one gap, written as one or more marks; - reads stdin.")
    ],
    model: Model = "",
    mark: Annotated[str, typer.Option(help="Character that marks the gap.")] = "_",
    num: Annotated[
        int, typer.Option("--num", "-n", min=1, help="Largest number of fillings to show.")
    ] = 10,
    particles: Annotated[
        int | None, typer.Option(min=1, help="Number of samples for a gap of three or more tokens.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of the samples.")] = None,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Fill a gap in a text, using the text on both sides of it.

    Each mark stands for one token, which is one character for models of characters.

    [dim]charlm fill "The c_t sat on the mat"
    charlm fill "It was the ____ of times" -n 3[/dim]
    """
    left, length, right = _sides(read(text), mark)
    gap = Gap(
        left=left,
        right=right,
        length=length,
        max_fillings=num,
        num_particles=particles,
        seed=seed,
    )

    async def call(client: Client) -> None:
        name = await chosen_model(client, model)
        filled = await client.fill_gap(gap, model=name, replace_unknown=replace_unknown)
        if as_json:
            print_json(asdict(filled) | {"model": name})
        else:
            _show_fillings(filled, console(color))

    run_call(server, timeout, call, flags=_FLAGS)


def _sides(text: str, mark: str) -> tuple[str, int, str]:
    """What is before the gap, its length, and what is after it."""
    if len(mark) != 1:
        message = f"{mark!r} has {len(mark)} characters; it must have one."
        raise typer.BadParameter(message, param_hint="--mark")
    gaps = list(re.finditer(re.escape(mark) + "+", text))
    if len(gaps) != 1:
        raise typer.BadParameter(
            f"TEXT has {len(gaps)} gaps; it must have one: a run of {mark!r}. "
            "Choose another --mark if the text itself has that character."
        )
    return text[: gaps[0].start()], len(gaps[0][0]), text[gaps[0].end() :]


def _show_fillings(filled: FilledGap, out: Console) -> None:
    if not out.is_terminal:
        print("text\tposterior\ttotal_logprob_nats")
        for each in filled.fillings:
            print(f"{json_string(each.text)}\t{each.posterior:.6f}\t{each.total_logprob:.6f}")
        return
    table = plain_table()
    for each in filled.fillings:
        table.add_row(quoted(each.text), f"{each.posterior:7.2%}")
    out.print(table)
    how = "exact" if filled.is_exact else "sampled"
    if filled.effective_sample_size is not None:
        how += f", worth {filled.effective_sample_size:.1f} samples of the posterior"
    out.print(how, style="dim")
