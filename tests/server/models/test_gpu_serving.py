"""Models served on a device: verified at load, with kept states in the processor's memory.

The kernels are run by Triton's interpreter, where 60 ms are little.
"""

import asyncio
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import scoring_pb2 as sco
from charlm_model.checkpoint import Checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.gpu.placement import numerics_id
from charlm_model.kernels.cpu import ARITHMETIC
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.philox import Counters
from charlm_model.text.vocabulary import Vocabulary
from charlm_server.config.settings import ServeConfig
from charlm_server.errors.base import ServeError
from charlm_server.models import loading
from charlm_server.models.batch_invariance import BatchInvariance, measure_batch_invariance
from charlm_server.models.loading import serve_checkpoint
from tests.server import wire as wires
from tests.server.rpc.services.test_state import by_name, created, exported, imported, of_text
from tests.server.wire import Wire, checkpoint_of, serving, vocabulary_of

pytest.importorskip("triton", reason="the extra `triton` is not installed: make unit")

from interpreted import interpreted

MODEL = "models/transformer-char"
CONFIG = ServeConfig(checkpoints={}, max_batch_size=2, threads=1, device="cuda")
GPU = torch.device("cuda", 0)


class Recorded:
    """Does nothing, and records new sizes."""

    news: ClassVar[list[Hashable]] = []

    def __init__(self, device: torch.device) -> None:
        self._names: set[Hashable] = set()

    def run(self, name: Hashable, enqueue: Callable[[], None]) -> None:
        if name not in self._names:
            self._names.add(name)
            self.news.append(name)


@pytest.mark.parametrize("family", ["lstm", "transformer"])
def test_measured_batch_sizes_need_no_new_graph(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("charlm_model.gpu.workspace.CudaGraphs", Recorded)
    gpu, sizes = interpreted(checkpoint_of(family, vocabulary_of("char")).model), [1, 2, 48]

    measure_batch_invariance(gpu, sizes)

    assert Recorded.news
    Recorded.news.clear()
    for size in sizes:
        state, counters = gpu.initial_state(size), Counters(*[np.zeros(size, np.uint64)] * 3)
        for length in (1, 2, 5, 64, 127, 300):
            gpu.advance(torch.zeros(size, length, dtype=torch.long), state)
            gpu.sample(torch.zeros(size, gpu.config.vocab_size), state, counters, length)
    assert not Recorded.news


def test_numerics_name_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA Fake 1")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))

    named = numerics_id(torch.device("cuda", 7))

    assert f"/torch-{torch.__version__}/NVIDIA-Fake-1/sm_90/triton-" in named
    assert named.startswith(f"charlm-{ARITHMETIC}/")
    assert named != numerics_id()


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Callable[[LanguageModel], None]:
    """Lets every model go to a GPU, where it becomes the one given."""

    def become(served: LanguageModel) -> None:
        monkeypatch.setattr(loading, "device_named", lambda name: GPU)
        monkeypatch.setattr(loading, "on_device", lambda model, device: served)

    return become


def test_a_device_that_computes_something_else_is_not_used(
    on_a_gpu: Callable[[LanguageModel], None],
) -> None:
    checkpoint = checkpoint_of("lstm", vocabulary_of("char"))
    on_a_gpu(checkpoint_of("gru", vocabulary_of("char")).model)

    with pytest.raises(ServeError, match=r"models/x cannot be served on cuda:0: .* differ by"):
        serve_checkpoint("models/x", checkpoint, CONFIG)


def test_a_model_that_does_not_fit_is_reported(
    on_a_gpu: Callable[[LanguageModel], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = checkpoint_of("lstm", vocabulary_of("char"))
    on_a_gpu(checkpoint.model)

    def measure_batch_invariance(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(loading, "measure_batch_invariance", measure_batch_invariance)
    with pytest.raises(ServeError, match="models/x does not fit into the memory of cuda:0"):
        serve_checkpoint("models/x", checkpoint, CONFIG)


def small(family: str, vocabulary: Vocabulary) -> Checkpoint:
    """As few programs as can be: one head of one layer."""
    torch.manual_seed(1)
    config = ModelConfig(
        family=family, vocab_size=vocabulary.size, hidden_size=8, embedding_size=8,
        num_heads=1, context_length=3,
    )  # fmt: skip
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return replace(checkpoint_of(family, vocabulary), model=model.eval())


@pytest.mark.slow
async def test_gpu_kernels_have_the_same_bits_in_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(wires, "checkpoint_of", small)
    monkeypatch.setattr(loading, "on_device", lambda model, device: interpreted(model))
    monkeypatch.setattr(
        loading, "measure_batch_invariance", lambda *_: BatchInvariance((1, 3), True)
    )
    monkeypatch.setattr("charlm_model.checkpoint._NUM_GOLDEN_TOKENS", 3)
    async with serving(("transformer", "char")) as wire:
        calls = _generated, _generated_after_a_state, _scored
        alone = [await call(wire) for call in calls]
        together = await asyncio.gather(*[call(wire) for call in calls])

    assert together == alone
    assert alone[0] == alone[1]


async def _generated(wire: Wire) -> Any:
    return await _outputs(wire, of_text("ab"))


async def _generated_after_a_state(wire: Wire) -> Any:
    """Kept, exported, imported and gone on with."""
    data = await exported(wire, (await created(wire, MODEL, "ab")).name)
    return await _outputs(wire, by_name(await imported(wire, data)))


async def _scored(wire: Wire) -> Any:
    item = sco.ScoreItem(text="abc")
    return (await wire.scoring.Score(sco.ScoreRequest(model=MODEL, items=[item]))).scores


async def _outputs(wire: Wire, context: Any) -> Any:
    stopping = {"max_new_tokens": 2, "ignore_end_of_text": True}
    request = gen.GenerateRequest(
        model=MODEL, context=context, sampling={"seed": 7}, stopping=stopping
    )
    return (await wire.generation.Generate(request)).outputs
