"""The command `charlm serve-ray`. Flags and environment variables are read here."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Annotated, Any

import typer

from charlm_server.cluster.autoscaling import Autoscaling
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
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import ServeError

DEFAULTS = Autoscaling()
OBJECT_STORE_BYTES = 256 << 20  # of a cluster that is started here: messages are small


@with_limit_flags
def serve_ray(
    checkpoints: Checkpoints,
    replicas: Annotated[
        str,
        typer.Option(
            envvar="CHARLM_REPLICAS",
            metavar="N or N:M",
            help="Number of replicas; N:M adds and removes replicas with the load.",
        ),
    ] = "1",
    target_calls: Annotated[
        float,
        bounded(float, 0.1, help="Add replicas while each has more open calls than this."),
    ] = DEFAULTS.target_calls,
    max_calls: Annotated[
        int, bounded(int, 1, help="Most calls waiting or running in one replica.")
    ] = DEFAULTS.max_calls,
    cpus: Annotated[
        float, bounded(float, 0.1, help="CPUs that each replica reserves.")
    ] = DEFAULTS.cpus,
    upscale_after: Annotated[
        float,
        bounded(
            float, 0, metavar="SECONDS", help="Time over --target-calls before replicas are added."
        ),
    ] = DEFAULTS.upscale_after_s,
    downscale_after: Annotated[
        float,
        bounded(float, 0, metavar="SECONDS", help="Time under it before replicas are removed."),
    ] = DEFAULTS.downscale_after_s,
    port: Annotated[
        int, bounded(int, 1, 65535, envvar="CHARLM_PORT", help="Port of Ray's gRPC proxy.")
    ] = 50051,
    allow_insecure: AllowInsecure = False,
    tokens: Tokens = None,
    mixture: Mixtures = None,
    address: Annotated[
        str,
        typer.Option(
            envvar="RAY_ADDRESS",
            help="Address of a Ray cluster; default: start one on this machine.",
        ),
    ] = "",
    drain_grace: DrainGrace = 25.0,
    *,
    limits: Callable[[], Limits],
) -> None:
    """Serve checkpoints as replicas on a Ray cluster, until SIGTERM.

    Every node must find the checkpoints and the tokens under the same paths.

    [dim]charlm serve-ray runs/best --replicas 2 --allow-insecure
    charlm serve-ray runs/best --replicas 1:8 --address auto --allow-insecure[/dim]
    """
    with exiting_with_a_message():
        _check_encryption(allow_insecure)
        least, most = _range_from(replicas)
        autoscaling = Autoscaling(
            min_replicas=least,
            max_replicas=most,
            target_calls=target_calls,
            max_calls=max_calls,
            cpus=cpus,
            upscale_after_s=upscale_after,
            downscale_after_s=downscale_after,
        )
        named = named_checkpoints(checkpoints)
        config = ServeConfig(
            checkpoints=named,
            mixtures=named_mixtures(mixture or (), named),
            drain_grace_s=drain_grace,
            reflection=False,
            tokens=tokens,
            limits=limits(),
        )
        _run(config, autoscaling, address, port)


def _check_encryption(allow_insecure: bool) -> None:
    if not allow_insecure:
        raise ServeError(
            "Ray's gRPC proxy listens on all addresses without encryption. Let only a trusted "
            "network reach it, or put a proxy with TLS in front of it, and give --allow-insecure."
        )


def _range_from(replicas: str) -> tuple[int, int]:
    least, _, most = replicas.partition(":")
    try:
        return int(least), int(most or least)
    except ValueError:
        raise ServeError(
            f"--replicas is {replicas!r}; it must be N or N:M, as in 2 or 1:8."
        ) from None


def _run(config: ServeConfig, autoscaling: Autoscaling, address: str, port: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray sends usage statistics by default
    # Ray takes seconds to import: `charlm serve-ray --help` and wrong flags must answer at once.
    try:
        import ray
        from ray import serve
    except ImportError:
        raise ServeError("Ray is not installed. Run: pip install 'charlm[ray]'") from None

    from charlm_server.cluster.application import ADD_SERVICES, NAME, application

    asked_to_stop = threading.Event()
    local: dict[str, Any] = {
        "_node_ip_address": "127.0.0.1",  # between the cluster's processes
        "include_dashboard": False,
        "object_store_memory": OBJECT_STORE_BYTES,
    }
    ray.init(address=address or "local", log_to_driver=False, **({} if address else local))
    for number in (signal.SIGTERM, signal.SIGINT):  # after Ray's own handlers
        signal.signal(number, lambda *_: asked_to_stop.set())
    try:
        serve.start(
            proxy_location="EveryNode",
            http_options={"host": "127.0.0.1", "port": _free_port()},  # required by Ray
            grpc_options={
                "port": port,
                "grpc_servicer_functions": [ADD_SERVICES],
                "enable_reflection": False,
            },
        )
        serve.run(application(config, autoscaling), name=NAME)
        print(f"charlm: serving {' '.join(config.checkpoints)} on 127.0.0.1:{port}", flush=True)
        asked_to_stop.wait()
    finally:
        serve.shutdown()
        ray.shutdown()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
