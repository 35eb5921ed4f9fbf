"""Models are loaded, replaced, renamed and unloaded while calls run."""

import asyncio
import shutil
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from charlm.v1 import admin_pb2, admin_pb2_grpc, scoring_pb2, state_pb2
from charlm.v1 import generation_pb2 as gen
from charlm_model import checkpoint as checkpoints
from charlm_server.app import App
from charlm_server.config.settings import ServeConfig
from charlm_server.models.loading import load_models
from charlm_server.models.registry import LoadedModel
from tests.server.wire import Wire, checkpoint_of, vocabulary_of

SERVING = health_pb2.HealthCheckResponse.SERVING
MODEL = "models/one"
ENDLESS = {"max_new_tokens": 1_000_000, "ignore_end_of_text": True}


def write(directory: Path, seed: int) -> None:
    """A checkpoint with random weights of its own."""
    made = checkpoint_of("gru", vocabulary_of("char"))
    torch.manual_seed(seed)
    for parameter in made.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    checkpoints.save(directory, made.model, made.vocabulary, {"seed": seed})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("one", "two")):
        write(tmp_path / "root" / name, seed)
    return tmp_path / "root"


@asynccontextmanager
async def serving(root: Path, **options: object) -> AsyncIterator[Wire]:
    config = ServeConfig(
        checkpoints={MODEL: root / "one"},
        port=0,
        max_batch_size=4,
        threads=1,
        drain_grace_s=5.0,
        admin=True,
        model_root=root,
    )
    config = replace(config, **options)  # type: ignore[arg-type]
    models = load_models(config)
    app = App(config, models)
    address = await app.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            yield Wire(address, channel, models, app)
    finally:
        await app.drain()


class Admin:
    """What an operator asks, in short."""

    def __init__(self, wire: Wire) -> None:
        self.stub = admin_pb2_grpc.AdminServiceStub(wire.channel)

    async def load(self, checkpoint: str, model: str = "") -> str:
        request = admin_pb2.LoadModelRequest(checkpoint=checkpoint, model=model)
        return (await self.stub.LoadModel(request)).model.digest

    async def alias(self, alias: str, model: str) -> str:
        request = admin_pb2.SetAliasRequest(alias=alias, model=model)
        return (await self.stub.SetAlias(request)).previous_model

    async def unload(self, model: str) -> None:
        await self.stub.UnloadModel(admin_pb2.UnloadModelRequest(model=model))

    async def loads(self, model: str = "") -> list[admin_pb2.ModelLoad]:
        request = admin_pb2.GetLoadRequest(model=model)
        return list((await self.stub.GetLoad(request)).loads)


async def code_of(call: object) -> str:
    try:
        await call  # type: ignore[misc]
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"


def held(wire: Wire, name: str) -> LoadedModel:
    """The model, without holding on to it as a call does."""
    return next(model for model in wire.models if model.name == name)


def stream_of(
    wire: Wire, model: str
) -> "grpc.aio.UnaryStreamCall[gen.StreamGenerateRequest, gen.StreamGenerateResponse]":
    asked = gen.GenerateRequest(model=model, stopping=ENDLESS)
    return wire.generation.StreamGenerate(gen.StreamGenerateRequest(generate=asked))


@pytest.mark.slow
async def test_the_load_counts_the_states_of_each_model(root: Path) -> None:
    asked = state_pb2.CreateStateRequest(model=MODEL, context={"text": "the"})
    async with serving(root) as wire:
        admin = Admin(wire)
        await admin.load("two")
        before = [load.num_states for load in await admin.loads()]
        await wire.states.CreateState(asked)
        (load,) = await admin.loads(MODEL)
        (other,) = await admin.loads("models/two")

    assert (before, load.num_states, other.num_states) == ([0, 0], 1, 0)


@pytest.mark.slow
async def test_an_alias_moves_to_a_new_model_and_streams_finish_on_the_old(root: Path) -> None:
    asked = gen.GenerateRequest(model="models/best", stopping={"max_new_tokens": 5})
    async with serving(root) as wire:
        admin = Admin(wire)
        assert await admin.alias("models/best", MODEL) == ""
        running = stream_of(wire, "models/best")
        old = (await anext(aiter(running))).header.model_digest
        new = await admin.load("two")
        assert await admin.alias("models/best", "models/two") == MODEL
        answer = await wire.generation.Generate(asked)
        unloading = asyncio.ensure_future(admin.unload(MODEL))
        further = await anext(aiter(running))
        assert not unloading.done()
        running.cancel()
        await unloading

    assert old != new == answer.model_digest
    assert further.chunks
    assert answer.model == "models/two"


@pytest.mark.slow
async def test_an_unloaded_model_frees_its_memory(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[bool] = []  # whether a GPU's memory was given back once the model was gone
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(model() is None))
    async with serving(root) as wire:
        admin, health = Admin(wire), health_pb2_grpc.HealthStub(wire.channel)
        await admin.load("two")
        asked = health_pb2.HealthCheckRequest(service="models/two")
        assert (await health.Check(asked)).status == SERVING
        model = weakref.ref(held(wire, "models/two").checkpoint.model)
        thread = held(wire, "models/two").scheduler._thread
        await code_of(wire.generation.Generate(gen.GenerateRequest(model="models/two")))
        await admin.unload("models/two")

        assert emptied == [True]
        assert [load.model for load in await admin.loads()] == [MODEL]
        assert await code_of(health.Check(asked)) == "NOT_FOUND"
        assert model() is None
        assert not thread.is_alive()


async def test_calls_that_outlast_the_grace_end_with_what_they_have(root: Path) -> None:
    async with serving(root, unload_grace_s=0.0) as wire:
        running = stream_of(wire, MODEL)
        await anext(aiter(running))
        await Admin(wire).unload(MODEL)
        last = [response async for response in running][-1]

    assert last.chunks[-1].end.finish_reason == gen.FINISH_REASON_DRAINED


@pytest.mark.parametrize(
    "name",
    ["", "../one", "/etc", "..", "one/../two", "nothing", "linked", "half", "a\0b", "x" * 99],
)
async def test_names_are_not_used_as_paths(root: Path, tmp_path: Path, name: str) -> None:
    write(tmp_path / "outside", 3)
    (root / "linked").symlink_to(tmp_path / "outside")
    shutil.copytree(root / "two", root / "half")
    (root / "half" / "report.json").unlink()
    (root / "half" / "report.json").symlink_to(tmp_path / "outside" / "report.json")
    async with serving(root) as wire:
        assert await code_of(Admin(wire).load(name, "models/new")) == "NOT_FOUND"


async def test_a_damaged_checkpoint_changes_nothing(root: Path) -> None:
    async with serving(root) as wire:
        [before] = await Admin(wire).loads()
        weights = root / "one" / checkpoints.WEIGHTS
        weights.write_bytes(weights.read_bytes()[:-1])
        assert await code_of(Admin(wire).load("one")) == "DATA_LOSS"
        assert await Admin(wire).loads() == [before]


async def test_ambiguous_names_are_refused(root: Path) -> None:
    async with serving(root) as wire:
        admin = Admin(wire)
        await admin.alias("models/best", MODEL)
        assert await code_of(admin.alias(MODEL, MODEL)) == "INVALID_ARGUMENT"
        assert await code_of(admin.alias("best", MODEL)) == "INVALID_ARGUMENT"
        assert await code_of(admin.load("two", "models/best")) == "INVALID_ARGUMENT"
        assert await code_of(admin.alias("models/best", "models/nothing")) == "NOT_FOUND"
        assert await code_of(admin.unload(MODEL)) == "FAILED_PRECONDITION"
        await admin.unload("models/best")
        assert await code_of(admin.unload("models/best")) == "NOT_FOUND"


async def test_models_and_aliases_are_counted(root: Path) -> None:
    async with serving(root) as wire:
        names = [f"models/{index}" for index in range(63)]
        codes = [await code_of(Admin(wire).alias(name, MODEL)) for name in names]
        assert set(codes) == {"OK"}
        assert await code_of(Admin(wire).load("two")) == "RESOURCE_EXHAUSTED"


async def test_without_the_flag_there_is_no_admin(root: Path) -> None:
    async with serving(root, admin=False) as wire:
        assert await code_of(Admin(wire).loads()) == "UNIMPLEMENTED"


async def test_the_watch_loads_new_checkpoints_and_keeps_old_models_otherwise(
    root: Path,
) -> None:
    async with serving(root) as wire:
        await wire.app.watch.look()
        assert wire.models.names == [MODEL, "models/two"]
        digests = {name: wire.models.digest(name) for name in wire.models.names}
        write(root / "one", 5)
        (root / "two" / checkpoints.MANIFEST).write_text("{")
        shutil.copytree(root / "one", root / "three")
        await wire.app.watch.look()
        after = {name: wire.models.digest(name) for name in wire.models.names}

    assert after["models/one"] == after["models/three"] != digests[MODEL]
    assert after["models/two"] == digests["models/two"]


class Keeper:
    """A state kept under a name, and a request that continues it."""

    def __init__(self, wire: Wire, model: str) -> None:
        self._wire, self._model = wire, model

    async def create(self) -> None:
        asked = state_pb2.CreateStateRequest(model=self._model, context={"text": "abc"})
        state = (await self._wire.states.CreateState(asked)).state
        self.name, self.digest = state.name, state.model_digest

    async def advance(self) -> float:
        asked = state_pb2.AdvanceStateRequest(name=self.name, text="d")
        return (await self._wire.states.AdvanceState(asked)).total_logprob

    async def generate(self) -> tuple[str, bytes]:
        """The digest of whatever answered, and the answer."""
        asked = gen.GenerateRequest(
            model=self._model,
            context={"state": {"name": self.name}},
            sampling={"seed": 1},
            stopping={"max_new_tokens": 8, "ignore_end_of_text": True},
        )
        answer = await self._wire.generation.Generate(asked)
        return answer.model_digest, answer.outputs[0].data

    async def score(self) -> tuple[str, float]:
        item = scoring_pb2.ScoreItem(context={"state": {"name": self.name}}, text="efg")
        asked = scoring_pb2.ScoreRequest(model=self._model, items=[item])
        answer = await self._wire.scoring.Score(asked)
        return answer.model_digest, answer.scores[0].total_logprob

    async def delete(self) -> None:
        await self._wire.states.DeleteState(state_pb2.DeleteStateRequest(name=self.name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [MODEL, "models/best"])
async def test_states_stay_with_the_weights_that_made_them(root: Path, name: str) -> None:
    """By the model's own name and by an alias, bit for bit, until the last one is gone."""
    async with serving(root) as wire:
        admin = Admin(wire)
        await admin.load("two")
        await admin.alias("models/best", MODEL)
        keeper, other = Keeper(wire, name), Keeper(wire, name)
        await keeper.create()
        await other.create()
        before = await keeper.generate(), await keeper.score()
        total = await other.advance()
        old = held(wire, MODEL)
        new = await admin.load("two", MODEL)
        await admin.alias("models/best", "models/two")
        fresh = Keeper(wire, name)
        await fresh.create()
        after = await keeper.generate(), await keeper.score()
        assert (before, before[0][0]) == (after, keeper.digest)
        assert fresh.digest == new != keeper.digest
        assert await keeper.advance() == total
        await keeper.delete()
        wire.app.hot_swap.release()
        assert wire.models.replaced == [old]
        await other.delete()
        wire.app.hot_swap.release()
        await old.scheduler.nothing_open()
        await asyncio.gather(*wire.app.hot_swap._retiring)
        assert not wire.models.replaced
        assert not old.scheduler.is_alive
        assert (await fresh.generate())[0] == new


async def test_states_of_another_model_are_refused(root: Path) -> None:
    async with serving(root) as wire:
        await Admin(wire).load("two")
        keeper = Keeper(wire, MODEL)
        await keeper.create()
        keeper._model = "models/two"
        assert await code_of(keeper.generate()) == "FAILED_PRECONDITION"


async def test_an_unloaded_model_takes_its_states_with_it(root: Path) -> None:
    async with serving(root) as wire:
        admin, keeper = Admin(wire), Keeper(wire, MODEL)
        await keeper.create()
        await admin.load("two", MODEL)
        assert len(wire.models.replaced) == 1
        await admin.unload(MODEL)
        assert not wire.models.replaced
        assert await code_of(keeper.generate()) == "NOT_FOUND"


@pytest.mark.slow
async def test_no_call_fails_during_a_hot_swap(root: Path) -> None:
    """Generations, streams, scores and states, on a name whose model is replaced and an alias."""
    is_over = asyncio.Event()
    digests: set[str] = set()

    async def ask(wire: Wire, name: str) -> int:
        asked = gen.GenerateRequest(model=name, stopping={"max_new_tokens": 20})
        num_calls = 0
        while not is_over.is_set():
            digests.add((await wire.generation.Generate(asked)).model_digest)
            answers = await wire.stream(asked)
            assert answers[-1].chunks[-1].end.finish_reason in (
                gen.FINISH_REASON_LENGTH,
                gen.FINISH_REASON_END_OF_TEXT,
            )
            num_calls += 2
        return num_calls

    async def keep(wire: Wire, name: str) -> int:
        num_rounds = 0
        while not is_over.is_set():
            keeper = Keeper(wire, name)
            await keeper.create()
            await keeper.advance()
            first, *others = [await keeper.score() for _ in range(5)]
            assert {*others, first} == {first}
            assert (await keeper.generate())[0] == first[0] == keeper.digest
            await keeper.delete()
            num_rounds += 1
        return num_rounds

    async with serving(root) as wire:
        admin = Admin(wire)
        await admin.load("two")
        await admin.alias("models/best", MODEL)
        names = [MODEL, "models/best"]
        asking = [asyncio.ensure_future(ask(wire, name)) for name in names * 3]
        asking += [asyncio.ensure_future(keep(wire, name)) for name in names]
        for round_number in range(12):
            await admin.load(("two", "one")[round_number % 2], MODEL)
            await admin.alias("models/best", ("models/two", MODEL)[round_number % 2])
        is_over.set()
        num_calls = await asyncio.gather(*asking)

    assert all(num_calls)
    assert len(digests) == 2
