"""The command `charlm next`."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console

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
    bars,
    console,
    print_json,
)
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client
from charlm_client.types import (
    NextDistribution,
)

_FLAGS = {
    "context": "PROMPT",
    "top_k": "--top-k",
    "distribution": "--json",
}


def next_token(
    prompt: Annotated[
        str, typer.Argument(help="Text before the next character; - reads stdin.")
    ] = "",
    model: Model = "",
    top_k: Annotated[int, typer.Option(min=1, help="Number of characters to show.")] = 10,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show the most probable next characters and their probabilities.

    [dim]charlm next "To be or not to b"[/dim]
    """
    given = read(prompt)

    async def call(client: Client) -> None:
        name = await chosen_model(client, model)
        distribution = await client.next_distribution(
            given, model=name, top_k=top_k, replace_unknown=replace_unknown
        )
        if as_json:
            print_json(_distribution_json(distribution) | {"model": name})
        else:
            _show(distribution, console(color))

    run_call(server, timeout, call, flags=_FLAGS)


def _show(distribution: NextDistribution, out: Console) -> None:
    if out.is_terminal:
        out.print(bars(distribution))
        out.print(f"entropy {distribution.entropy / NATS_PER_BIT:.3f} bits", style="dim")
        return
    print("token_id\ttext\tlogprob_nats")
    for token in distribution.top:
        print(f"{token.token_id}\t{json.dumps(token.text)}\t{token.logprob:.6f}")


def _distribution_json(distribution: NextDistribution) -> dict[str, Any]:
    """Bytes as hexadecimal digits: JSON has no bytes."""
    top = [asdict(token) | {"data": token.data.hex()} for token in distribution.top]
    return asdict(distribution) | {"top": top}
