"""The application that Ray Serve runs: replicas, how many, and when there are more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve

from charlm_server.cluster.replica import Replica
from charlm_server.cluster.scale import Scale
from charlm_server.config.checkpoint_names import named_checkpoints
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import ServeError

NAME = "charlm"
ADD_SERVICES = "charlm_server.cluster.proxy:add_services"
STOPPING_MARGIN_S = 5.0  # beyond the grace that calls have


def application(config: ServeConfig, scale: Scale) -> Any:
    """What `serve.run` takes."""
    deployment: Any = serve.deployment(Replica)
    return deployment.options(
        name=NAME,
        max_ongoing_requests=scale.max_calls,
        ray_actor_options={"num_cpus": scale.cpus},
        graceful_shutdown_timeout_s=config.drain_grace_s + STOPPING_MARGIN_S,
        health_check_period_s=5.0,
        autoscaling_config={
            "min_replicas": scale.min_replicas,
            "max_replicas": scale.max_replicas,
            "target_ongoing_requests": scale.target_calls,
            "upscale_delay_s": scale.upscale_after_s,
            "downscale_delay_s": scale.downscale_after_s,
        },
    ).bind(config)


def build(args: Mapping[str, Any]) -> Any:
    """Named in Serve's configuration files; `args` are checkpoints, tokens and fields of Scale."""
    rest = dict(args)
    checkpoints, tokens = rest.pop("checkpoints", ()), rest.pop("tokens", None)
    try:
        scale = Scale(**rest)
    except TypeError as error:
        raise ServeError(
            f"args: {error}; known are checkpoints, tokens and the fields of Scale."
        ) from None
    config = ServeConfig(
        checkpoints=named_checkpoints(checkpoints),
        tokens=Path(tokens) if tokens else None,
        reflection=False,
    )
    return application(config, scale)
