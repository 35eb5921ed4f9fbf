"""The command `charlm serve`. Flags and environment variables are read here and nowhere else."""

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from charlm_server.config.checkpoint_names import named_checkpoints
from charlm_server.config.flags import (
    AllowInsecure,
    Checkpoints,
    DrainGrace,
    Mixtures,
    Tokens,
    bounded,
    exiting_with_a_message,
)
from charlm_server.config.limit_flags import with_limit_flags
from charlm_server.config.limits import Limits
from charlm_server.config.mixtures import named_mixtures
from charlm_server.config.settings import METRICS_HOST, ServeConfig, TlsFiles
from charlm_server.errors.base import ServeError
from charlm_server.observing.log_format import FORMATS


@with_limit_flags
def serve(
    checkpoints: Checkpoints,
    mixture: Mixtures = None,
    host: Annotated[
        str, typer.Option(envvar="CHARLM_HOST", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[
        int,
        bounded(int, 0, 65535, envvar="CHARLM_PORT", help="Port to listen on; 0 finds a free one."),
    ] = 50051,
    allow_insecure: AllowInsecure = False,
    tls_cert: Annotated[
        Path | None,
        typer.Option(envvar="CHARLM_SERVE_TLS_CERT", help="Server certificate chain, PEM."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(envvar="CHARLM_SERVE_TLS_KEY", help="Private key of --tls-cert, PEM."),
    ] = None,
    tls_client_ca: Annotated[
        Path | None,
        typer.Option(
            envvar="CHARLM_SERVE_TLS_CLIENT_CA",
            help="Require client certificates signed by these authorities, PEM.",
        ),
    ] = None,
    tokens: Tokens = None,
    admin: Annotated[
        bool,
        typer.Option(
            envvar="CHARLM_ADMIN",
            help="Enable AdminService, which loads and unloads models; with --tokens it is always "
            "enabled, for tokens of the role admin.",
        ),
    ] = False,
    model_root: Annotated[
        Path | None,
        typer.Option(
            envvar="CHARLM_MODEL_ROOT",
            help="Folder of the checkpoints that LoadModel and --watch can load.",
        ),
    ] = None,
    watch: Annotated[
        float | None,
        bounded(
            float,
            0.1,
            envvar="CHARLM_WATCH",
            metavar="SECONDS",
            help="Load new checkpoints from --model-root, checking this often; SIGHUP checks now.",
        ),
    ] = None,
    max_batch_size: Annotated[
        int,
        bounded(
            int,
            1,
            4096,
            envvar="CHARLM_MAX_BATCH_SIZE",
            help="Most sequences decoded in one batch.",
        ),
    ] = 64,
    threads: Annotated[
        int | None,
        bounded(int, 1, envvar="CHARLM_THREADS", help="Threads of torch; default: torch decides."),
    ] = None,
    device: Annotated[
        str,
        typer.Option(
            envvar="CHARLM_DEVICE",
            help="Device for the models: cpu, cuda or cuda:1. N-grams and mixtures stay on cpu.",
        ),
    ] = "cpu",
    drain_grace: DrainGrace = 25.0,
    stuck_after: Annotated[
        float,
        bounded(
            float,
            0.1,
            envvar="CHARLM_STUCK_AFTER",
            metavar="SECONDS",
            help="Report NOT_SERVING if one step of an engine takes longer.",
        ),
    ] = 30.0,
    reflection: Annotated[
        bool,
        typer.Option(
            envvar="CHARLM_REFLECTION",
            help="Offer server reflection, so that tools such as grpcurl find the services.",
        ),
    ] = True,
    metrics_port: Annotated[
        int | None,
        bounded(
            int,
            0,
            65535,
            envvar="CHARLM_METRICS_PORT",
            help="Serve Prometheus metrics on this port, over HTTP; 0 finds a free one.",
        ),
    ] = None,
    metrics_host: Annotated[
        str | None,
        typer.Option(
            envvar="CHARLM_METRICS_HOST",
            help="Address of the metrics; they hold counts, never texts.",
            show_default="127.0.0.1",
        ),
    ] = None,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            envvar=["CHARLM_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
            metavar="URL",
            help="Send traces to this OpenTelemetry collector, as in http://localhost:4317.",
        ),
    ] = None,
    log_level: Annotated[
        str,
        typer.Option(
            envvar="CHARLM_LOG_LEVEL",
            help="debug, info, warning or error; info logs a line for each call.",
        ),
    ] = "warning",
    log_format: Annotated[
        str, typer.Option(envvar="CHARLM_LOG_FORMAT", help="text or json.")
    ] = "text",
    *,
    limits: Callable[[], Limits],
) -> None:
    """Serve checkpoints over gRPC until SIGTERM.

    [dim]charlm serve book
    charlm serve novel=book letters --port 50052
    charlm serve book letters --mixture both=online:book,letters[/dim]
    """
    with exiting_with_a_message():
        _set_up_logging(log_level, log_format)
        tls = _tls_from(tls_cert, tls_key, tls_client_ca)
        _check_encryption(host, allow_insecure or tls is not None, has_tokens=tokens is not None)
        _check_admin(host, admin=admin, has_tokens=tokens is not None)
        _check_watch(watch, model_root)
        _check_metrics(metrics_host, metrics_port)
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
            metrics_host=metrics_host or METRICS_HOST,
            metrics_port=metrics_port,
            otlp_endpoint=otlp_endpoint,
            limits=limits(),
        )
        _run(config)


def _run(config: ServeConfig) -> None:
    # torch takes a second to import: `charlm serve --help` and wrong flags must answer at once.
    from charlm_server.app import serve as serve_until_stopped

    asyncio.run(serve_until_stopped(config, lambda line: print(line, flush=True)))


def _set_up_logging(level: str, line_format: str) -> None:
    names = logging.getLevelNamesMapping()
    if level.upper() not in names:
        raise ServeError(f"--log-level is {level!r}; it must be debug, info, warning or error.")
    if line_format not in FORMATS:
        raise ServeError(f"--log-format is {line_format!r}; it must be {' or '.join(FORMATS)}.")
    handler = logging.StreamHandler()
    handler.setFormatter(FORMATS[line_format]())
    logging.basicConfig(level=names[level.upper()], handlers=[handler])


def _tls_from(cert: Path | None, key: Path | None, client_ca: Path | None) -> TlsFiles | None:
    if cert and key:
        return TlsFiles(cert=cert, key=key, client_ca=client_ca)
    if cert or key or client_ca:
        given = "--tls-cert" if cert else "--tls-key" if key else "--tls-client-ca"
        raise ServeError(f"{given} needs both --tls-cert and --tls-key; give both.")
    return None


def _check_encryption(host: str, allow_insecure: bool, *, has_tokens: bool) -> None:
    if not allow_insecure and not _is_loopback(host):
        danger = (
            "tokens would cross the network in plain text"
            if has_tokens
            else "calls would be neither encrypted nor authenticated"
        )
        raise ServeError(
            f"--host is {host}, which other machines can reach, and {danger}. Give --tls-cert and "
            "--tls-key, listen on 127.0.0.1, or allow it with --allow-insecure."
        )


def _check_admin(host: str, *, admin: bool, has_tokens: bool) -> None:
    if admin and not has_tokens and not _is_loopback(host):
        raise ServeError(
            f"--admin with --host {host} would let any caller load and unload models. Give "
            "--tokens too, or listen on 127.0.0.1."
        )


def _check_watch(watch: float | None, model_root: Path | None) -> None:
    if watch is not None and model_root is None:
        raise ServeError("--watch needs a folder to check; give --model-root DIR.")


def _check_metrics(host: str | None, port: int | None) -> None:
    if host is not None and port is None:
        raise ServeError(
            f"--metrics-host is {host}, but without --metrics-port no metrics are served; give "
            "--metrics-port (0 finds a free one)."
        )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
