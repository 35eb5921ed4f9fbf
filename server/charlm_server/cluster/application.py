"""The application that Ray Serve runs: replicas, how many, and when there are more."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve

from charlm_server.cluster.autoscaling import Autoscaling
from charlm_server.cluster.replica import Replica
from charlm_server.config.checkpoint_names import named_checkpoints
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import ServeError

NAME = "charlm"
ADD_SERVICES = "charlm_server.cluster.proxy:add_services"
STOPPING_MARGIN_S = 5.0  # added to the grace for open calls


def application(config: ServeConfig, autoscaling: Autoscaling) -> Any:
    """What `serve.run` takes."""
    deployment: Any = serve.deployment(Replica)
    return deployment.options(
        name=NAME,
        max_ongoing_requests=autoscaling.max_calls,
        ray_actor_options={"num_cpus": autoscaling.cpus},
        graceful_shutdown_timeout_s=config.drain_grace_s + STOPPING_MARGIN_S,
        health_check_period_s=5.0,
        autoscaling_config={
            "min_replicas": autoscaling.min_replicas,
            "max_replicas": autoscaling.max_replicas,
            "target_ongoing_requests": autoscaling.target_calls,
            "upscale_delay_s": autoscaling.upscale_after_s,
            "downscale_delay_s": autoscaling.downscale_after_s,
        },
    ).bind(config)


def build(args: Mapping[str, Any]) -> Any:
    """The application that Serve's configuration files name.

    `args` are checkpoints, tokens and the fields of Autoscaling.
    """
    rest = dict(args)
    checkpoints, tokens = rest.pop("checkpoints", ()), rest.pop("tokens", None)
    try:
        autoscaling = Autoscaling(**rest)
    except TypeError as error:
        raise ServeError(
            f"args: {error}; known are checkpoints, tokens and the fields of Autoscaling."
        ) from None
    config = ServeConfig(
        checkpoints=named_checkpoints(checkpoints),
        tokens=Path(tokens) if tokens else None,
        reflection=False,
    )
    return application(config, autoscaling)
