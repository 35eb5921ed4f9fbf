"""The commands `charlm encode`, `charlm decode` and `charlm vocabulary`."""

import json
from dataclasses import asdict
from typing import Annotated

import typer

from charlm_client.cli.commands import chosen_model, print_json
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Model,
    ReplaceUnknown,
    Server,
    Timeout,
)
from charlm_client.cli.session import ask, read
from charlm_client.client import Client


def encode(
    text: Annotated[str, typer.Argument(help="A text; - reads it from stdin.")],
    model: Model = "",
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show the tokens that a text is to the model, and where each begins.

    [dim]charlm encode "To be"[/dim]
    """
    given = read(text)

    async def asking(client: Client) -> None:
        name = await chosen_model(client, model)
        (found,) = await client.encode([given], model=name, replace_unknown=replace_unknown)
        if as_json:
            print_json(asdict(found) | {"model": name})
            return
        vocabulary = await client.vocabulary(model=name)
        print("offset\ttoken_id\ttext")
        for offset, token_id in zip(found.character_offsets, found.token_ids, strict=True):
            print(f"{offset}\t{token_id}\t{_quoted(vocabulary[token_id])}")

    ask(server, timeout, asking)


def decode(
    token_ids: Annotated[list[int], typer.Argument(min=0, help="Token ids.")],
    model: Model = "",
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show the text of token ids. The end of text, 0, has none.

    [dim]charlm decode 33 54 1[/dim]
    """

    async def asking(client: Client) -> None:
        name = await chosen_model(client, model)
        (text,) = await client.decode([token_ids], model=name)
        if as_json:
            print_json({"text": text, "model": name})
        else:
            print(text)

    ask(server, timeout, asking)


def vocabulary(
    model: Model = "",
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """List every token of the model, by its id.

    [dim]charlm vocabulary | grep '"q"'[/dim]
    """

    async def asking(client: Client) -> None:
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
                print(f"{token_id}\t{_quoted(data)}")

    ask(server, timeout, asking)


def _quoted(data: bytes) -> str:
    """A token as a JSON string, or what it is when it is no text by itself."""
    try:
        return json.dumps(data.decode()) if data else "end of text"
    except UnicodeDecodeError:
        return f"bytes {data.hex(' ')}"
