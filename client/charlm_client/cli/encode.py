"""The command `charlm encode`."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm_client.cli.input_file import read
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Model,
    ReplaceUnknown,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import print_json, token_string
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client

_FLAGS = {
    "texts": "TEXT",
}


def encode(
    text: Annotated[str, typer.Argument(help="Text to encode; - reads stdin.")],
    model: Model = "",
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show the tokens of a text and the character offset of each.

    [dim]charlm encode "To be"[/dim]
    """
    given = read(text)

    async def call(client: Client) -> None:
        name = await chosen_model(client, model)
        (found,) = await client.encode([given], model=name, replace_unknown=replace_unknown)
        if as_json:
            print_json(asdict(found) | {"model": name})
            return
        vocabulary = await client.vocabulary(model=name)
        print("offset\ttoken_id\ttext")
        for offset, token_id in zip(found.character_offsets, found.token_ids, strict=True):
            print(f"{offset}\t{token_id}\t{token_string(vocabulary[token_id])}")

    run_call(server, timeout, call, flags=_FLAGS)
