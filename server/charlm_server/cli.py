"""The command `charlm serve`. Flags and environment variables are read here and nowhere else."""

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from charlm_server.config.checkpoint_names import named_checkpoints
from charlm_server.config.limit_flags import with_limit_flags
from charlm_server.config.limits import Limits
from charlm_server.config.mixtures import named_mixtures
from charlm_server.config.settings import ServeConfig, TlsFiles
from charlm_server.errors.base import ServeError
from charlm_server.observing.log_format import FORMATS


@with_limit_flags
def serve(
    checkpoints: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR...",
            envvar="CHARLM_CHECKPOINTS",
            help="Checkpoints to serve, each DIR or NAME=DIR; a folder of checkpoints serves all.",
        ),
    ],
    mixture: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=KIND:MODEL@WEIGHT,...",
            envvar="CHARLM_MIXTURE",
            help="Serve several of the models as one, too: linear, log_linear or online.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(envvar="CHARLM_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(envvar="CHARLM_PORT", min=0, max=65535, help="0 finds a free port.")
    ] = 50051,
    allow_insecure: Annotated[
        bool,
        typer.Option(
            envvar="CHARLM_ALLOW_INSECURE",
            help="Listen without encryption on addresses that others can reach.",
        ),
    ] = False,
    tls_cert: Annotated[
        Path | None, typer.Option(envvar="CHARLM_SERVE_TLS_CERT", help="Certificate chain, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(envvar="CHARLM_SERVE_TLS_KEY", help="Key of the certificate, PEM."),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="CHARLM_SERVE_TLS_CLIENT_CA",
            help="Take only callers with a certificate signed by these, PEM.",
        ),
    ] = None,
    tokens: Annotated[
        Path | None,
        typer.Option(
            envvar="CHARLM_TOKENS", help="Take only callers with a token of this file, TOML."
        ),
    ] = None,
    admin: Annotated[
        bool,
        typer.Option(
            envvar="CHARLM_ADMIN",
            help="Let callers load and unload models; with --tokens, those with the role admin.",
        ),
    ] = False,
    model_root: Annotated[
        Path | None,
        typer.Option(envvar="CHARLM_MODEL_ROOT", help="Where new checkpoints are looked for."),
    ] = None,
    watch: Annotated[
        float | None,
        typer.Option(
            envvar="CHARLM_WATCH",
            metavar="SECONDS",
            min=0.1,
            help="Serve what is new in --model-root, looking this often; SIGHUP looks at once.",
        ),
    ] = None,
    max_batch_size: Annotated[
        int,
        typer.Option(
            envvar="CHARLM_MAX_BATCH_SIZE", min=1, max=4096, help="Sequences decoded together."
        ),
    ] = 64,
    threads: Annotated[
        int | None,
        typer.Option(envvar="CHARLM_THREADS", min=1, help="Threads of torch; unset: its choice."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            envvar="CHARLM_DEVICE",
            help="Where models compute: cpu, cuda, or cuda:1. An n-gram or a mixture stays on cpu.",
        ),
    ] = "cpu",
    drain_grace: Annotated[
        float,
        typer.Option(
            envvar="CHARLM_DRAIN_GRACE", min=0, help="Seconds for running calls after SIGTERM."
        ),
    ] = 25.0,
    stuck_after: Annotated[
        float,
        typer.Option(
            envvar="CHARLM_STUCK_AFTER",
            min=0.1,
            help="Seconds after which a step that does not end makes health say NOT_SERVING.",
        ),
    ] = 30.0,
    reflection: Annotated[
        bool, typer.Option(envvar="CHARLM_REFLECTION", help="Let stock clients find the contract.")
    ] = True,
    metrics_port: Annotated[
        int | None,
        typer.Option(
            envvar="CHARLM_METRICS_PORT",
            min=0,
            max=65535,
            help="Serve Prometheus metrics there, over HTTP; 0 finds a free one.",
        ),
    ] = None,
    metrics_host: Annotated[
        str,
        typer.Option(
            envvar="CHARLM_METRICS_HOST", help="Whoever reaches it reads counts, but no texts."
        ),
    ] = "127.0.0.1",
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar=["CHARLM_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
            metavar="URL",
            help="Send traces to an OpenTelemetry collector, such as http://localhost:4317.",
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="CHARLM_LOG_LEVEL",
            help="debug, info, warning or error; info has a line for every call.",
        ),
    ] = "warning",
    log_format: Annotated[
        str, typer.Option(envvar="CHARLM_LOG_FORMAT", help="text, or json for machines.")
    ] = "text",
    *,
    limits: Callable[[], Limits],
) -> None:
    """Serve checkpoints over gRPC until SIGTERM.

    [dim]charlm serve book
    charlm serve novel=book letters --port 50052
    charlm serve book letters --mixture both=online:book,letters[/dim]
    """
    try:
        _set_up_logging(log_level, log_format)
        tls = _tls_from(tls_cert, tls_key, tls_client_ca)
        _refuse_open_door(host, allow_insecure or tls is not None, has_tokens=tokens is not None)
        _refuse_open_admin(host, admin=admin, has_tokens=tokens is not None)
        _refuse_blind_watch(watch, model_root)
        named = named_checkpoints(checkpoints)
        config = ServeConfig(
            checkpoints=named,
            mixtures=named_mixtures(mixture or (), named),
            host=host,
            port=port,
            max_batch_size=max_batch_size,
            threads=threads,
            device=device,
            drain_grace_s=drain_grace,
            stuck_after_s=stuck_after,
            reflection=reflection,
            admin=admin,
            model_root=model_root,
            watch_s=watch,
            tls=tls,
            tokens=tokens,
            metrics_host=metrics_host,
            metrics_port=metrics_port,
            otlp_endpoint=otlp_endpoint,
            limits=limits(),
        )
        _run(config)
    except ServeError as error:
        typer.echo(f"charlm: {error}", err=True)
        raise typer.Exit(1) from error


def _run(config: ServeConfig) -> None:
    # torch takes a second to import: `charlm serve --help` and wrong flags must answer at once.
    from charlm_server.app import serve as serve_until_stopped

    asyncio.run(serve_until_stopped(config, lambda line: print(line, flush=True)))


def _set_up_logging(level: str, line_format: str) -> None:
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        raise ServeError(f"--log-level is {level!r}, but must be debug, info, warning or error.")
    if line_format not in FORMATS:
        raise ServeError(f"--log-format is {line_format!r}, but must be {' or '.join(FORMATS)}.")
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[line_format]())
    logging.basicConfig(level=names[level.upper()], handlers=[handler])


def _tls_from(cert: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    if cert and key:
        return TlsFiles(cert=cert, key=key, client_ca=client_ca)
    if cert or key or client_ca:
        raise ServeError("Encryption needs both --tls-cert and --tls-key.")
    return None


def _refuse_open_door(host: str, allow_insecure: bool, *, has_tokens: bool) -> None:
    if not allow_insecure and not _is_loopback(host):
        danger = (
            "its tokens would cross the network in plain text"
            if has_tokens
            else "this port is neither encrypted nor guarded"
        )
        raise ServeError(
            f"--host {host} can be reached by others, and {danger}. Give --tls-cert and "
            "--tls-key, listen on 127.0.0.1, or accept that with --allow-insecure."
        )


def _refuse_open_admin(host: str, *, admin: bool, has_tokens: bool) -> None:
    if admin and not has_tokens and not _is_loopback(host):
        raise ServeError(
            f"--admin on {host} would let anyone who reaches it change what is served. Give "
            "--tokens too, or listen on 127.0.0.1."
        )


def _refuse_blind_watch(watch: float | None, model_root: Path | None) -> None:
    if watch is not None and model_root is None:
        raise ServeError("--watch needs to know where to look: give --model-root DIR.")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
