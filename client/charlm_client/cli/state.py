"""The commands `charlm state create | advance | fork | show | list | delete | export | import`."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from charlm_client.api.states import State
from charlm_client.cli.input_file import opened, read
from charlm_client.cli.options import (
    SERVER_DEFAULT,
    TIMEOUT_DEFAULT,
    AsJson,
    Model,
    ReplaceUnknown,
    Server,
    Timeout,
)
from charlm_client.cli.output_file import check_writable, written
from charlm_client.cli.rendering import print_json
from charlm_client.cli.run_call import chosen_model, run_call
from charlm_client.client import Client

app = typer.Typer(
    help="Keep model states on the server and continue from them.", no_args_is_help=True
)

_FLAGS = {
    "name": "NAME",
    "context": "TEXT",
    "text": "TEXT",
    "continuation": "TEXT",
    "time_to_live": "--time-to-live",
    "checkpoint": "--checkpoint",
    "etag": "--etag",
    "position": "--position",
    "data": "FILE",
}
Name = Annotated[str, typer.Argument(help="Name of the state.")]
TimeToLive = Annotated[
    float | None,
    typer.Option(min=0.001, help="Seconds after its last use at which the state expires."),
]


@app.command()
def create(
    text: Annotated[str, typer.Argument(help="Text that the model reads; - reads stdin.")] = "",
    model: Model = "",
    time_to_live: TimeToLive = None,
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Read a text and keep the model's state after it.

    [dim]charlm state create "Chapter 1" --time-to-live 3600[/dim]
    """
    given = read(text)

    async def call(client: Client) -> State:
        return await client.states.create(
            given,
            model=await chosen_model(client, model),
            time_to_live_s=time_to_live,
            replace_unknown=replace_unknown,
        )

    _tell(run_call(server, timeout, call, flags=_FLAGS), as_json=as_json)


@app.command()
def advance(
    name: Name,
    text: Annotated[str, typer.Argument(help="Text that the model reads next; - reads stdin.")],
    checkpoint: Annotated[
        bool,
        typer.Option(
            "--checkpoint", help="Make the new position one that `fork --position` can use later."
        ),
    ] = False,
    etag: Annotated[str, typer.Option(help="Refuse unless the state still has this etag.")] = "",
    replace_unknown: ReplaceUnknown = False,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Read more text into a state, and show the log-probability of that text."""
    given = read(text)
    state, logprob = run_call(
        server,
        timeout,
        lambda client: client.states.advance(
            name, given, etag=etag, checkpoint=checkpoint, replace_unknown=replace_unknown
        ),
        flags=_FLAGS,
    )
    _tell(state, as_json=as_json, total_logprob=logprob)


@app.command()
def fork(
    name: Name,
    position: Annotated[
        int | None,
        typer.Option(min=0, help="Copy a checkpointed position, in tokens, instead of the end."),
    ] = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Copy a state, at its end or at an earlier checkpointed position."""
    _tell(
        run_call(
            server,
            timeout,
            lambda client: client.states.fork(name, position=position),
            flags=_FLAGS,
        ),
        as_json=as_json,
    )


@app.command()
def show(
    name: Name,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Show one state."""
    _tell(
        run_call(server, timeout, lambda client: client.states.get(name), flags=_FLAGS),
        as_json=as_json,
    )


@app.command("list")
def list_states(
    model: Model = "",
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """List your states."""
    for state in run_call(
        server, timeout, lambda client: client.states.list(model=model), flags=_FLAGS
    ):
        _tell(state, as_json=as_json)


@app.command()
def delete(name: Name, server: Server = SERVER_DEFAULT, timeout: Timeout = TIMEOUT_DEFAULT) -> None:
    """Delete a state."""
    run_call(server, timeout, lambda client: client.states.delete(name), flags=_FLAGS)


@app.command("export")
def export_state(
    name: Name,
    file: Annotated[Path, typer.Argument(help="File to write; - writes to stdout.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Write a state to a file that `charlm state import` can read."""
    check_writable(file, force=force)
    data = run_call(server, timeout, lambda client: client.states.export(name), flags=_FLAGS)
    with written(file) as out:
        out.write(data)


@app.command("import")
def import_state(
    file: Annotated[Path, typer.Argument(help="File with an exported state; - reads stdin.")],
    time_to_live: TimeToLive = None,
    as_json: AsJson = False,
    server: Server = SERVER_DEFAULT,
    timeout: Timeout = TIMEOUT_DEFAULT,
) -> None:
    """Load an exported state into the server."""
    with opened(file) as source:
        data = source.read()
    state = run_call(
        server,
        timeout,
        lambda client: client.states.import_(data, time_to_live_s=time_to_live),
        flags=_FLAGS,
    )
    _tell(state, as_json=as_json)


def _tell(state: State, *, as_json: bool, **more: Any) -> None:
    if as_json:
        print_json({**asdict(state), "expire_time": state.expire_time.isoformat(), **more})
        return
    parts = [state.name, f"{state.num_tokens:,} tokens", f"{state.num_bytes:,} bytes"]
    if state.checkpointed_positions:
        parts.append(f"forks at {', '.join(map(str, state.checkpointed_positions))}")
    parts.append(f"until {state.expire_time:%Y-%m-%d %H:%M:%S} UTC")
    parts += [f"{name.replace('_', ' ')} {value:.6f}" for name, value in more.items()]
    typer.echo("  ".join(parts))
