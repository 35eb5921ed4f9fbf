"""The command `charlm models`."""

from dataclasses import asdict

from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Color,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import (
    console,
    model_row,
    model_table,
    print_json,
)
from charlm_client.cli.run_call import run_call


def models(
    as_json: AsJson = False,
    color: Color = "auto",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """List the models that a server has loaded."""
    loaded = run_call(server, timeout, lambda client: client.list_models())
    out = console(color)
    if as_json:
        for model in loaded:
            print_json(asdict(model))
    elif out.is_terminal:
        out.print(model_table(loaded))
    else:
        for model in loaded:
            print("\t".join(model_row(model, separator="")))
