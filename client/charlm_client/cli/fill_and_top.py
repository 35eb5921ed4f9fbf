"""The commands `charlm fill` and `charlm top`."""

import json
import re
from dataclasses import asdict
from math import exp
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from charlm_client.api.inference import FilledGap, Gap, TopContinuations
from charlm_client.cli.commands import chosen_model, print_json
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
from charlm_client.cli.rendering import NATS_PER_BIT, console, visible
from charlm_client.cli.session import ask, read
from charlm_client.client import Client


def fill(
    text: Annotated[str, typer.Argument(help="A text with a gap; - reads it from stdin.")],
    model: Model = "",
    mark: Annotated[str, typer.Option(help="Character of which the gap is made.")] = "_",
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Most fillings.")] = 10,
    particles: Annotated[
        int | None, typer.Option(min=1, help="Samples for gaps longer than two.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same samples.")] = None,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Fill the gap in a text: what stood there, given both sides.

    Each mark is one token: a character, for models of characters.

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

    async def asking(client: Client) -> None:
        name = await chosen_model(client, model)
        filled = await client.fill_gap(gap, model=name, replace_unknown=replace_unknown)
        if as_json:
            print_json(asdict(filled) | {"model": name})
        else:
            _show_fillings(filled, console(color))

    ask(server, timeout, asking)


def top(
    prompt: Annotated[str, typer.Argument(help="What comes before; - reads it from stdin.")] = "",
    model: Model = "",
    length: Annotated[int, typer.Option("--length", "-l", min=1, help="Tokens of each.")] = 5,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="How many.")] = 10,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Most steps of the model to spend.")
    ] = None,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """List the most probable continuations, with proof that no better one is missing.

    [dim]charlm top "To be or not to " --length 3
    charlm top "the " -l 8 -n 20 --max-steps 100000[/dim]
    """

    async def asking(client: Client) -> None:
        name = await chosen_model(client, model)
        found = await client.top_continuations(
            read(prompt),
            model=name,
            length=length,
            num=num,
            max_steps=max_steps,
            replace_unknown=replace_unknown,
        )
        if as_json:
            print_json(asdict(found) | {"model": name})
        else:
            _show_continuations(found, console(color))

    ask(server, timeout, asking)


def _sides(text: str, mark: str) -> tuple[str, int, str]:
    """What is before the gap, its length, and what is after it."""
    if len(mark) != 1:
        raise typer.BadParameter(f"{mark!r} must be one character.", param_hint="--mark")
    gaps = list(re.finditer(re.escape(mark) + "+", text))
    if len(gaps) != 1:
        raise typer.BadParameter(
            f"The text has {len(gaps)} gaps, but it must have one: a run of {mark!r}. "
            "Choose another --mark if the text itself has that character."
        )
    return text[: gaps[0].start()], len(gaps[0][0]), text[gaps[0].end() :]


def _show_fillings(filled: FilledGap, out: Console) -> None:
    if not out.is_terminal:
        print("text\tposterior\ttotal_logprob_nats")
        for each in filled.fillings:
            print(f"{_json(each.text)}\t{each.posterior:.6f}\t{each.total_logprob:.6f}")
        return
    table = _table()
    for each in filled.fillings:
        table.add_row(_quoted(each.text), f"{each.posterior:7.2%}")
    out.print(table)
    how = "exact" if filled.is_exact else "sampled"
    if filled.effective_sample_size is not None:
        how += f", worth {filled.effective_sample_size:.1f} samples of the posterior"
    out.print(how, style="dim")


def _show_continuations(found: TopContinuations, out: Console) -> None:
    if not out.is_terminal:
        print("text\ttotal_logprob_nats")
        for each in found.continuations:
            print(f"{_json(each.text)}\t{each.total_logprob:.6f}")
    else:
        table = _table()
        for each in found.continuations:
            table.add_row(_quoted(each.text), f"{exp(each.total_logprob):9.4%}")
        out.print(table)
    bits = -found.missing_logprob_bound / NATS_PER_BIT
    verdict = "complete" if found.is_complete else "incomplete: spend more with --max-steps"
    note = f"{verdict}; nothing that is missing costs less than {bits:.2f} bits"
    Console(stderr=True, highlight=False, soft_wrap=True).print(note, style="dim")


def _table() -> Table:
    return Table(box=None, show_header=False, padding=(0, 1))


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _quoted(text: str) -> Text:
    return Text("'" + "".join(map(visible, text)).replace("\n", "") + "'")
