"""The commands `charlm admin load | alias | unload | list`."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm_client.cli.options import SERVER_DEFAULT, AsJson, Server, Timeout
from charlm_client.cli.rendering import print_json
from charlm_client.cli.run_call import run_call

LOADING_S = 600.0  # large checkpoints are verified first, and unloading waits for calls

app = typer.Typer(help="Load, alias and unload models on a server that was started with --admin.")


@app.command()
def load(
    checkpoint: Annotated[
        str, typer.Argument(help="Name of a checkpoint in the server's model directory.")
    ],
    model: Annotated[
        str, typer.Option("--as", help="Name for the model; default: the checkpoint's name.")
    ] = "",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = LOADING_S,
) -> None:
    """Load a checkpoint, or replace a loaded model by it.

    [dim]charlm admin load 2024-11 --as candidate[/dim]
    """
    loaded = run_call(
        server,
        timeout,
        lambda client: client.admin.load_model(checkpoint, model=model),
        flags={"checkpoint": "CHECKPOINT", "model": "--as"},
    )
    typer.echo(f"{loaded.name} {loaded.digest}")


@app.command()
def alias(
    name: Annotated[str, typer.Argument(help="Alias to create or repoint.")],
    model: Annotated[str, typer.Argument(help="Loaded model that the alias points to.")],
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = LOADING_S,
) -> None:
    """Point an alias to a loaded model; new calls use it at once.

    [dim]charlm admin alias best candidate[/dim]
    """
    previous = run_call(
        server,
        timeout,
        lambda client: client.admin.set_alias(name, model=model),
        flags={"alias": "NAME", "model": "MODEL"},
    )
    typer.echo(f"it pointed to {previous}" if previous else "it is new")


@app.command()
def unload(
    model: Annotated[str, typer.Argument(help="Model or alias to unload.")],
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = LOADING_S,
) -> None:
    """Unload a model after its open calls have ended, or delete an alias."""
    run_call(
        server, timeout, lambda client: client.admin.unload_model(model), flags={"model": "MODEL"}
    )


@app.command("list")
def list_loads(
    as_json: AsJson = False, server: Server = SERVER_DEFAULT, timeout: Timeout = 10.0
) -> None:
    """Show how many sequences each model runs and has queued."""
    for load in run_call(server, timeout, lambda client: client.admin.loads()):
        if as_json:
            print_json(asdict(load))
        else:
            typer.echo(
                f"{load.model}  running {load.num_running}  waiting {load.num_waiting}  "
                f"parked {load.num_parked}  sampled {load.num_sampled_tokens}"
            )
