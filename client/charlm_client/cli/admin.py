"""The commands `charlm admin load | alias | unload | list`."""

from dataclasses import asdict
from typing import Annotated

import typer

from charlm_client.cli.options import SERVER_DEFAULT, AsJson, Server, Timeout
from charlm_client.cli.rendering import print_json
from charlm_client.cli.run_call import run_call

LOADING_S = 600.0  # large checkpoints are verified first, and unloading waits for calls

app = typer.Typer(help="Change what a server serves: it must offer that, see charlm serve --help.")


@app.command()
def load(
    checkpoint: Annotated[str, typer.Argument(help="Entry of the server's model directory.")],
    model: Annotated[str, typer.Option("--as", help="Name to serve it under.")] = "",
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = LOADING_S,
) -> None:
    """Load or replace a model.

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
    name: Annotated[str, typer.Argument(help="The alias.")],
    model: Annotated[str, typer.Argument(help="The loaded model that it shall stand for.")],
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = LOADING_S,
) -> None:
    """Let a name stand for a loaded model, from the next call on.

    [dim]charlm admin alias best candidate[/dim]
    """
    previous = run_call(
        server,
        timeout,
        lambda client: client.admin.set_alias(name, model=model),
        flags={"alias": "NAME", "model": "MODEL"},
    )
    typer.echo(f"it stood for {previous}" if previous else "it is new")


@app.command()
def unload(
    model: Annotated[str, typer.Argument(help="A model or an alias.")],
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = LOADING_S,
) -> None:
    """Forget a model once its calls have ended, or an alias."""
    run_call(
        server, timeout, lambda client: client.admin.unload_model(model), flags={"model": "MODEL"}
    )


@app.command("list")
def list_loads(
    as_json: AsJson = False, server: Server = SERVER_DEFAULT, timeout: Timeout = 10.0
) -> None:
    """Tell how busy each model is."""
    for load in run_call(server, timeout, lambda client: client.admin.loads()):
        if as_json:
            print_json(asdict(load))
        else:
            typer.echo(
                f"{load.model}  running {load.num_running}  waiting {load.num_waiting}  "
                f"parked {load.num_parked}  sampled {load.num_sampled_tokens}"
            )
