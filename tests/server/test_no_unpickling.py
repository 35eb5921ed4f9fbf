"""Nothing is unpickled, and no path in a request is looked at, while a real server works."""

import asyncio
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from charlm.v1 import generation_pb2, state_pb2
from charlm_model import checkpoint as checkpoints
from charlm_server.app import ADMIN, SERVICES, App
from charlm_server.config.settings import ServeConfig
from charlm_server.models.loading import load_model
from charlm_server.models.registry import Models
from tests.e2e.fuzz.calls import Fuzz
from tests.server.wire import Wire, checkpoint_of, vocabulary_of

MODEL = "models/fox"
MARK = "a-path-from-a-request"
WATCHED = (
    "open",
    "os.listdir",
    "os.scandir",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "shutil.copyfile",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A model directory with one checkpoint."""
    made = checkpoint_of("lstm", vocabulary_of("char"))
    checkpoints.save(tmp_path / "fox", made.model, made.vocabulary, {})
    return tmp_path


def config_for(root: Path) -> ServeConfig:
    return ServeConfig(
        checkpoints={}, port=0, max_batch_size=2, threads=1, admin=True, model_root=root,
        drain_grace_s=5.0,
    )  # fmt: skip


def poisoned(unpickle: Callable[..., Any]) -> Callable[..., Any]:
    """Works for numba alone."""

    def call(*arguments: Any, **options: Any) -> Any:
        frame = sys._getframe()
        while frame := frame.f_back:  # type: ignore[assignment]
            if frame.f_globals.get("__name__", "").startswith("numba."):
                return unpickle(*arguments, **options)
        raise AssertionError("something is unpickled")

    return call


async def test_nothing_is_unpickled_by_loading_and_serving(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compiled kernels are the exception: numba keeps them so, and `keeping.py` guards them."""
    config = config_for(root)
    text = {"text": "the fox"}
    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, poisoned(getattr(pickle, name)))
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(pickle.dumps(1))
    models = Models([load_model(MODEL, root / "fox", config)])
    app = App(config, models)
    address = await app.start()
    async with grpc.aio.insecure_channel(address) as channel:
        wire = Wire(address, channel, models, app)
        await wire.generation.Generate(generation_pb2.GenerateRequest(model=MODEL))
        created = await wire.states.CreateState(
            state_pb2.CreateStateRequest(model=MODEL, context=text)
        )
        named = state_pb2.ExportStateRequest(name=created.state.name)
        parts = [part.data async for part in wire.states.ExportState(named)]
        await wire.states.ImportState(iter([state_pb2.ImportStateRequest(data=b"".join(parts))]))
        inlined = {"state": {"inline_state": b"".join(parts)}}
        await wire.generation.Generate(
            generation_pb2.GenerateRequest(
                model=MODEL, context=inlined, stopping={"max_new_tokens": 2}
            )
        )
    await app.drain()


@contextmanager
def seen_paths(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Whatever path the process looks at, meanwhile."""
    seen: list[str] = []
    is_on = [True]

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if is_on[0] and event in WATCHED:
            seen.append(str(arguments[0]))

    def noting(real: Any) -> Any:
        def call(path: Any, *arguments: Any, **options: Any) -> Any:
            seen.append(str(path))
            return real(path, *arguments, **options)

        return call

    sys.addaudithook(hook)  # it stays for good, and does nothing once this is over
    with monkeypatch.context() as patch:
        for name in ("stat", "lstat", "access", "readlink"):
            patch.setattr(os, name, noting(getattr(os, name)))
        yield seen
    is_on[0] = False


def filled(descriptor: Descriptor, path: str, depth: int = 0) -> Message:
    """A message whose texts and bytes are all a path; the model exists, or nothing would happen."""
    message: Any = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.containing_oneof is not None and field is not field.containing_oneof.fields[0]:
            continue
        value = value_for(field, path, depth)
        if value is None:
            continue
        if field.is_repeated:
            if field.message_type is None or not field.message_type.GetOptions().map_entry:
                getattr(message, field.name).append(value)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)
    return message


def value_for(field: FieldDescriptor, path: str, depth: int) -> Any:
    if field.message_type is not None:
        return filled(field.message_type, path, depth + 1) if depth < 4 else None
    if field.type == FieldDescriptor.TYPE_STRING:
        return MODEL if field.name == "model" and "Admin" not in field.full_name else path
    return path.encode() if field.type == FieldDescriptor.TYPE_BYTES else None


async def test_no_path_in_a_request_is_accessed(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every text and all bytes of every method are a path, in several spellings."""
    config = config_for(root)
    models = Models([load_model(MODEL, root / "fox", config)])
    app = App(config, models)
    address = await app.start()
    spellings = [
        f"../{MARK}",
        f"/tmp/{MARK}",
        f"fox/../../{MARK}",
        f"{MARK}/config.json",
        f"file:///{MARK}",
    ]
    num_calls = 0
    with seen_paths(monkeypatch) as seen:
        async with grpc.aio.insecure_channel(address) as channel:
            fuzz = Fuzz(channel, {}, (), seed=1)
            for service in [*SERVICES, ADMIN]:
                for method in service.methods:
                    for spelling in spellings:
                        data = filled(method.input_type, spelling).SerializeToString()
                        await asyncio.wait_for(fuzz._ended(method, [data], None), 30)
                        num_calls += 1
        (tmp_path / "to see that it would be seen").touch()
    await app.drain()

    assert any("to see that it would be seen" in each for each in seen)
    assert [each for each in seen if MARK in each] == []
    assert num_calls > 100
