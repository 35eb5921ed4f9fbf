"""The command `charlm decode`."""

from typing import Annotated

import typer

from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Model,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import print_json
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client

_FLAGS = {
    "sequences": "TOKEN_IDS",
}


def decode(
    token_ids: Annotated[list[int], typer.Argument(min=0, help="Token ids to decode.")],
    model: Model = "",
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show the text of token ids. Id 0, the end of text, has no characters.

    [dim]charlm decode 33 54 1[/dim]
    """

    async def call(client: Client) -> None:
        name = await chosen_model(client, model)
        (text,) = await client.decode([token_ids], model=name)
        if as_json:
            print_json({"text": text, "model": name})
        else:
            print(text)

    run_call(server, timeout, call, flags=_FLAGS)
