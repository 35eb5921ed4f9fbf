"""The command `charlm top`."""

from dataclasses import asdict
from math import exp
from typing import Annotated

import typer
from rich.console import Console

from charlm_client.api.inference import TopContinuations
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
from charlm_client.cli.rendering import (
    NATS_PER_BIT,
    console,
    json_string,
    plain_table,
    print_json,
    quoted,
)
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client

_FLAGS = {
    "context": "PROMPT",
    "length": "--length",
    "num_continuations": "--num",
    "max_steps": "--max-steps",
}


def top(
    prompt: Annotated[str, typer.Argument(help="Text to continue; - reads stdin.")] = "",
    model: Model = "",
    length: Annotated[
        int, typer.Option("--length", "-l", min=1, help="Length of each continuation, in tokens.")
    ] = 5,
    num: Annotated[int, typer.Option("--num", "-n", min=1, help="Number of continuations.")] = 10,
    max_steps: Annotated[
        int | None, typer.Option(min=1, help="Largest number of model steps for the search.")
    ] = None,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """List the most probable continuations.

    The result says whether the list is complete, that is, whether the search proved that
    no continuation outside it is more probable.

    [dim]charlm top "To be or not to " --length 3
    charlm top "the " -l 8 -n 20 --max-steps 100000[/dim]
    """

    async def call(client: Client) -> None:
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

    run_call(server, timeout, call, flags=_FLAGS)


def _show_continuations(found: TopContinuations, out: Console) -> None:
    if not out.is_terminal:
        print("text\ttotal_logprob_nats")
        for each in found.continuations:
            print(f"{json_string(each.text)}\t{each.total_logprob:.6f}")
    else:
        table = plain_table()
        for each in found.continuations:
            table.add_row(quoted(each.text), f"{exp(each.total_logprob):9.4%}")
        out.print(table)
    bits = -found.missing_logprob_bound / NATS_PER_BIT
    verdict = "complete" if found.is_complete else "incomplete: spend more with --max-steps"
    note = f"{verdict}; nothing that is missing costs less than {bits:.2f} bits"
    Console(stderr=True, highlight=False, soft_wrap=True).print(note, style="dim")
