"""The command `charlm vocabulary`."""

from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Model,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import print_json, token_string
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client


def vocabulary(
    model: Model = "",
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """List all tokens of a model in order of their ids.

    [dim]charlm vocabulary | grep '"q"'[/dim]
    """

    async def call(client: Client) -> None:
        name = await chosen_model(client, model)
        tokens = await client.vocabulary(model=name)
        if not as_json:
            print("token_id\ttext")
        for token_id, data in enumerate(tokens):
            if as_json:
                print_json(
                    {
                        "token_id": token_id,
                        "text": data.decode(errors="replace"),
                        "data": data.hex(),
                    }
                )
            else:
                print(f"{token_id}\t{token_string(data)}")

    run_call(server, timeout, call)
