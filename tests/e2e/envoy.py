"""Envoy with the configuration that we ship, between a client and servers of a test."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import yaml

from tests.e2e.processes import free_port

SHIPPED = Path(__file__).parents[2] / "deploy" / "envoy" / "envoy.yaml"
ENVOY = Path(sys.prefix) / "bin" / "envoy"
START_TIMEOUT_S = 60
# One worker takes turns strictly; two would each take turns of their own.
FLAGS = ["--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"]


def adapted(hosts: Iterable[str], port: str, own_port: str) -> dict[str, Any]:
    """The shipped configuration with other addresses and nothing else."""
    config: dict[str, Any] = yaml.safe_load(SHIPPED.read_text())
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    (listener,) = config["static_resources"]["listeners"]
    listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": int(own_port)}
    (cluster,) = config["static_resources"]["clusters"]
    sockets = [{"address": host, "port_value": int(port)} for host in hosts]
    cluster["load_assignment"]["endpoints"] = [
        {"lb_endpoints": [{"endpoint": {"address": {"socket_address": each}}} for each in sockets]}
    ]
    return config


@asynccontextmanager
async def proxying(hosts: Iterable[str], port: str) -> AsyncIterator[str]:
    """Where Envoy listens, while it does."""
    own_port = free_port()
    config = json.dumps(adapted(hosts, port, own_port))
    process = await asyncio.create_subprocess_exec(ENVOY, *FLAGS, "--config-yaml", config)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{own_port}") as channel:
            await asyncio.wait_for(channel.channel_ready(), START_TIMEOUT_S)
        yield f"127.0.0.1:{own_port}"
    finally:
        process.kill()
        await process.wait()
