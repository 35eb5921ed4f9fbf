"""The command `charlm health`."""

from typing import Annotated

import typer

from charlm_client.cli.exit_codes import EXIT_ERROR
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    AsJson,
    Server,
    Timeout,
)
from charlm_client.cli.rendering import print_json
from charlm_client.cli.run_call import run_call


def health(
    service: Annotated[
        str, typer.Argument(help="Service or model to check; default: the whole server.")
    ] = "",
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = 3.0,
) -> None:
    """Show whether a server is serving; exits with code 1 if it is not."""
    is_serving = run_call(server, timeout, lambda client: client.check_health(service))
    status = "SERVING" if is_serving else "NOT_SERVING"
    if as_json:
        print_json({"service": service, "status": status})
    else:
        print(status)
    if not is_serving:
        raise typer.Exit(EXIT_ERROR)
