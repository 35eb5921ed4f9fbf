"""The command `charlm`: makes the app, registers every command, and runs."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from charlm_client.cli import (
    admin,
    bench,
    compare,
    compress,
    decode,
    decompress,
    encode,
    fill,
    generate,
    health,
    models,
    next_token,
    plugins,
    score,
    state,
    top,
    vocabulary,
)
from charlm_client.cli.exit_codes import exiting_with_a_message
from charlm_client.cli.run_call import SECURITY
from charlm_client.errors import InvalidRequest
from charlm_client.security import Security

app = typer.Typer(
    name="charlm",
    help="Train, serve and query character-level language models.",
    epilog="Start with: charlm train builtin:python-docs --out model --budget 1m, "
    "then charlm serve model, then charlm generate 'The '",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)


@app.callback()
def connection_flags(
    tls: Annotated[
        bool,
        typer.Option(
            envvar="CHARLM_TLS", help="Use TLS, with the system's certificate authorities."
        ),
    ] = False,
    tls_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="CHARLM_TLS_CA",
            help="Use TLS, with the certificate authorities in this PEM file.",
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(
            envvar="CHARLM_TLS_CERT", help="Client certificate, a PEM file; needs --tls-key."
        ),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(envvar="CHARLM_TLS_KEY", help="Private key of --tls-cert, a PEM file."),
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="CHARLM_TOKEN", help="Access token, sent only over TLS.")
    ] = "",
) -> None:
    if (tls_cert is None) != (tls_key is None):
        given, missing = ("--tls-cert", "--tls-key") if tls_cert else ("--tls-key", "--tls-cert")
        raise InvalidRequest(f"{given} needs {missing}: give both or neither.")
    is_secure = tls or tls_ca or tls_cert or tls_key or token
    SECURITY.set(
        Security(ca=tls_ca, cert=tls_cert, key=tls_key, token=token) if is_secure else None
    )


app.command("generate")(generate.generate)
app.command("score")(score.score)
app.command("next")(next_token.next_token)
app.command("models")(models.models)
app.command("health")(health.health)
app.command("compare")(compare.compare)
app.command("compress")(compress.compress)
app.command("decompress")(decompress.decompress)
app.command("fill")(fill.fill)
app.command("top")(top.top)
app.command("encode")(encode.encode)
app.command("decode")(decode.decode)
app.command("vocabulary")(vocabulary.vocabulary)
app.add_typer(admin.app, name="admin")
app.add_typer(bench.app, name="bench")
app.add_typer(state.app, name="state")
plugins.list_in(app)


def main() -> None:
    """The console script.

    Exit codes: 0 done, 1 an error, 2 wrong usage, 3 restored in part, 130 interrupted.
    """
    with exiting_with_a_message():
        name = sys.argv[1] if len(sys.argv) > 1 else ""
        if name in plugins.PLUGINS:
            plugins.load(name)(args=sys.argv[2:], prog_name=f"charlm {name}")
        else:
            app(prog_name="charlm")
