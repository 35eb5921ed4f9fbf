"""The life cycle of a server: start, serve until a signal, drain."""

import asyncio
import gc
import signal
import socket
from collections.abc import Callable
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc

from charlm.v1 import (
    admin_pb2,
    admin_pb2_grpc,
    codec_pb2,
    codec_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    inference_pb2,
    inference_pb2_grpc,
    models_pb2,
    models_pb2_grpc,
    scoring_pb2,
    scoring_pb2_grpc,
    state_pb2,
    state_pb2_grpc,
    tokenizer_pb2,
    tokenizer_pb2_grpc,
)
from charlm_server.calls.callers import Callers
from charlm_server.config.limits import Limits
from charlm_server.config.settings import ServeConfig, address_of
from charlm_server.errors.base import ServeError
from charlm_server.health_monitor import HealthMonitor
from charlm_server.models.directory_watch import DirectoryWatch
from charlm_server.models.hot_swap import HotSwap
from charlm_server.models.loading import load_model, load_models
from charlm_server.models.registry import Models
from charlm_server.observing.setup import Telemetry
from charlm_server.observing.sources import Sources
from charlm_server.rpc.auth_interceptor import AuthInterceptor
from charlm_server.rpc.call_tracking import Calls
from charlm_server.rpc.concurrency_interceptor import ConcurrencyInterceptor
from charlm_server.rpc.disabled_services import OPTIONAL_SERVICES, add_disabled_services
from charlm_server.rpc.error_interceptor import ErrorInterceptor
from charlm_server.rpc.reflection import add_reflection
from charlm_server.rpc.services.admin import AdminService
from charlm_server.rpc.services.codec import CodecService
from charlm_server.rpc.services.generation import GenerationService
from charlm_server.rpc.services.health import Health
from charlm_server.rpc.services.inference import InferenceService
from charlm_server.rpc.services.models import ModelService
from charlm_server.rpc.services.scoring import ScoringService
from charlm_server.rpc.services.state import StateService
from charlm_server.rpc.services.tokenizer import TokenizerService
from charlm_server.rpc.tls import server_credentials
from charlm_server.state_store import StateStore

SERVICES = [
    codec_pb2.DESCRIPTOR.services_by_name["CodecService"],
    generation_pb2.DESCRIPTOR.services_by_name["GenerationService"],
    inference_pb2.DESCRIPTOR.services_by_name["InferenceService"],
    models_pb2.DESCRIPTOR.services_by_name["ModelService"],
    scoring_pb2.DESCRIPTOR.services_by_name["ScoringService"],
    state_pb2.DESCRIPTOR.services_by_name["StateService"],
    tokenizer_pb2.DESCRIPTOR.services_by_name["TokenizerService"],
]
ADMIN = admin_pb2.DESCRIPTOR.services_by_name["AdminService"]
HEALTH_SERVICE = "grpc.health.v1.Health"
LAST_WORDS_S = 0.5  # for messages in transit and for watchers of the health service


class App:
    """The services of all models on one server: gRPC's, or one without a port."""

    def __init__(self, config: ServeConfig, models: Models, server: Any = None) -> None:
        self._config, self._models = config, models
        has_admin = config.admin or config.tokens is not None
        enabled = [*SERVICES, ADMIN] if has_admin else SERVICES
        names = [service.full_name for service in enabled]
        self.health = Health([*names, *models.names])
        self.monitor = HealthMonitor(self.health, names, models, config.stuck_after_s)
        self.states = StateStore(config.limits)
        self.hot_swap = HotSwap(
            config, models, self.states, load_model=load_model, on_change=self.monitor.check
        )
        self.watch = DirectoryWatch(self.hot_swap, config.watch_s)
        self.telemetry = Telemetry(config)
        self._server = server or grpc.aio.server(
            interceptors=interceptors_of(config, self.telemetry.calls),
            options=channel_options(config.limits),
        )
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(
            GenerationService(models, self.states), self._server
        )
        codec_pb2_grpc.add_CodecServiceServicer_to_server(CodecService(models), self._server)
        scoring_pb2_grpc.add_ScoringServiceServicer_to_server(
            ScoringService(models, self.states), self._server
        )
        tokenizer_pb2_grpc.add_TokenizerServiceServicer_to_server(
            TokenizerService(models), self._server
        )
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(
            InferenceService(models, self.states), self._server
        )
        state_pb2_grpc.add_StateServiceServicer_to_server(
            StateService(models, self.states), self._server
        )
        models_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)
        if has_admin:
            admin_pb2_grpc.add_AdminServiceServicer_to_server(
                AdminService(self.hot_swap, models, self.states), self._server
            )
        disabled = [service for service in OPTIONAL_SERVICES if service.full_name not in names]
        add_disabled_services(self._server, disabled)
        if config.reflection:
            every_name = [*names, *(service.full_name for service in disabled)]
            add_reflection(self._server, [*every_name, HEALTH_SERVICE])

    async def start(self) -> str:
        """Listen and serve; returns the address, with the port that was found if 0 was asked."""
        address = address_of(self._config.host, self._config.port)
        try:
            try_to_bind(self._config.host, self._config.port)
            port = self._add_port(address)
        except (OSError, RuntimeError) as error:
            raise ServeError(
                f"The server cannot listen on {address}: {error}. "
                "Give another --port (0 finds a free one) or --host."
            ) from error
        self.begin()
        await self._server.start()
        return address_of(self._config.host, port)

    def begin(self) -> None:
        """Start the engines, the telemetry and the periodic tasks; `start` does this too."""
        for model in self._models:
            model.scheduler.start()
        sources = Sources(
            models=self._models,
            num_retiring=lambda: len(self.hot_swap.retiring),
            states=self.states,
            monitor=self.monitor,
        )
        self.telemetry.start(sources)
        self.monitor.check()
        self._tasks = [
            asyncio.create_task(self.monitor.run()),
            asyncio.create_task(self.states.keep_dropping_expired(self.hot_swap.release)),
        ]
        if self._config.model_root is not None:
            self._tasks.append(asyncio.create_task(self.watch.run()))

    def _add_port(self, address: str) -> int:
        if self._config.tls is None:
            return self._server.add_insecure_port(address)
        return self._server.add_secure_port(address, server_credentials(self._config.tls))

    async def drain(self, grace_s: float | None = None) -> None:
        """Refuse new calls, wait for open ones, end the rest with partial results, and stop."""
        for task in self._tasks:
            task.cancel()
        models = [*self._models, *await self.hot_swap.close()]
        self.health.set_all(is_serving=False)
        grace_s = self._config.drain_grace_s if grace_s is None else grace_s
        async with asyncio.TaskGroup() as group:
            for model in models:
                group.create_task(model.scheduler.drain(grace_s))
        await self._server.stop(LAST_WORDS_S)
        for model in models:
            await model.scheduler.close()
        await asyncio.to_thread(self.telemetry.stop)


async def serve(config: ServeConfig, on_ready: Callable[[str], None]) -> None:
    """Run a server until SIGTERM or SIGINT. Raises ServeError if it cannot start."""
    asked_to_stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked_to_stop.set)
    freeze_collector()
    models = await asyncio.to_thread(load_models, config)
    app = App(config, models)
    if config.model_root is not None:
        loop.add_signal_handler(signal.SIGHUP, app.watch.check_now)
    address = await app.start()
    try:
        on_ready(f"charlm: serving {' '.join(models.names)} on {address}")
        if app.telemetry.metrics_address is not None:
            on_ready(f"charlm: metrics on http://{app.telemetry.metrics_address}/metrics")
        await asked_to_stop.wait()
    finally:  # also where the ready message cannot be printed
        await app.drain()


def interceptors_of(
    config: ServeConfig, calls: Calls | None = None
) -> list[grpc.aio.ServerInterceptor]:
    """The first is the outermost: it reports the refusals of the others."""
    auth = [] if config.tokens is None else [AuthInterceptor(Callers(config.tokens))]
    concurrency = ConcurrencyInterceptor(config.limits.max_open_calls)
    errors = ErrorInterceptor(calls or Calls(), config.limits.max_score_tokens)
    return [errors, concurrency, *auth]


def try_to_bind(host: str, port: int) -> None:
    """Raise OSError if the address is unavailable; gRPC logs the cause but does not raise it."""
    [(family, *_, address), *_] = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(address)


def channel_options(limits: Limits) -> list[tuple[str, int]]:
    options = [
        ("grpc.so_reuseport", 0),  # or a second server would silently share the port
        ("grpc.max_receive_message_length", limits.max_request_bytes),
        ("grpc.max_concurrent_streams", limits.max_streams_per_connection),
        ("grpc.max_allowed_incoming_connections", limits.max_connections),
        ("grpc.keepalive_time_ms", _ms(limits.keep_alive_s)),
        ("grpc.keepalive_timeout_ms", _ms(limits.keep_alive_timeout_s)),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", _ms(limits.min_ping_interval_s)),
        ("grpc.keepalive_permit_without_calls", 1),
    ]
    bounds = [
        ("grpc.max_connection_age_ms", limits.max_connection_age_s),
        ("grpc.max_connection_age_grace_ms", limits.connection_grace_s),
        ("grpc.max_connection_idle_ms", limits.max_connection_idle_s),
    ]
    return [*options, *((name, _ms(seconds)) for name, seconds in bounds if seconds)]


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def freeze_collector() -> None:
    """Freeze long-lived objects so that the collector skips them; once, before models load.

    Most of a server's objects are torch's and live as long as the process: a collection that scans
    them takes 100 to 200 ms and blocks every call and the engine. Models can be unloaded, so they
    are not frozen.
    """
    gc.collect()
    gc.freeze()
