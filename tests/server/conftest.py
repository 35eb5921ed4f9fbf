"""Fakes: a model whose next character is known, and a clock that only work moves."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from charlm_model.config import ModelConfig
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.params import SamplingParams
from charlm_model.state import State
from charlm_server.config.limits import Limits
from charlm_server.engine.engine import Engine, EngineConfig
from charlm_server.engine.generation import Delta, Stopping
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.engine.scoring import ScoringItem, ScoringJob
from charlm_server.engine.sequence import GenerationJob
from charlm_server.engine.stop_sequences import StopAutomaton
from charlm_server.engine.token_columns import Returns
from charlm_server.scheduling.admission import QueueLimits

torch.set_num_threads(1)

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
TOKEN_BYTES = [b""] + [letter.encode() for letter in ALPHABET]
CERTAIN = 60.0  # a logit that leaves the others about e^-60


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class PeriodicModel(LanguageModel):
    """After each letter comes the next one of the alphabet, and after the start an `a`.

    Each token of a row takes `seconds_per_token` on the clock.
    """

    def __init__(self, clock: Clock, seconds_per_token: float = 0.0) -> None:
        super().__init__(ModelConfig(family="periodic", vocab_size=len(TOKEN_BYTES)))
        self.clock, self.seconds_per_token = clock, seconds_per_token
        self.num_steps = 0
        self.fails = False

    def initial_state(self, batch_size: int) -> State:
        return State({"last": torch.zeros(batch_size, dtype=torch.int64)})

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        return self.advance(ids_BT, state)

    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        if self.fails:
            raise RuntimeError("the model broke")
        assert state.batch_size == len(ids_BT)
        self.num_steps += ids_BT.shape[1]
        self.clock.now += self.seconds_per_token * ids_BT.shape[1]
        next_BT = ids_BT % (self.config.vocab_size - 1) + 1
        logits_BTV = torch.nn.functional.one_hot(next_BT, self.config.vocab_size) * CERTAIN
        return logits_BTV.float(), State({"last": ids_BT[:, -1]})


@dataclass
class Bench:
    """An engine over the periodic model, driven by hand."""

    engine: Engine
    model: PeriodicModel
    clock: Clock
    rooms_made: list[Any] = field(default_factory=list)

    def job(self, prompt: str = "", **options: Any) -> GenerationJob:
        """A generation job; options are those of its parts."""
        stops = [stop.encode() for stop in options.pop("stops", [])]
        stopping = Stopping(
            max_new_tokens=options.pop("max_new_tokens", 5),
            stops=StopAutomaton(stops) if stops else None,
            ignore_end_of_text=options.pop("ignore_end_of_text", False),
        )
        return GenerationJob(
            prompt_ids=[0, *ids_of(prompt)],
            params=SamplingParams(logit_bias=options.pop("logit_bias", {})),
            seed=options.pop("seed", 1),
            stopping=stopping,
            returns=options.pop("returns", Returns()),
            num_outputs=options.pop("num_outputs", 1),
            bytes_per_token=24,
            output=self.output_buffer(options.pop("max_waiting_bytes", 1 << 20)),
            **options,
        )

    def scoring_job(self, *texts: str, **options: Any) -> ScoringJob:
        returns_state = options.pop("returns_states", False)
        items = [
            ScoringItem(context_ids=[0], continuation_ids=ids_of(text), returns_state=returns_state)
            for text in texts
        ]
        output = self.output_buffer(1 << 20)
        return ScoringJob(
            items=items, returns=Returns(), bytes_per_token=24, output=output, **options
        )

    def output_buffer(self, max_waiting_bytes: int) -> OutputBuffer[Any]:
        return OutputBuffer(max_waiting_bytes, lambda: self.rooms_made.append(True))

    def begin(self, *jobs: GenerationJob) -> None:
        for job in jobs:
            self.engine.begin(job)

    def tick(self) -> None:
        for event in self.engine.tick():
            event.deliver()

    def tick_lengths(self) -> int:
        """How many steps the model made in one tick."""
        before = self.model.num_steps
        self.tick()
        return self.model.num_steps - before

    def run_until(self, is_reached: Callable[[], bool]) -> None:
        while not is_reached():
            self.tick()

    def run(self) -> None:
        while self.engine.has_work:
            self.tick()


def queue_limits(**bounds: Any) -> QueueLimits:
    """As large as a server's own; every caller may fill the queue."""
    return replace(QueueLimits.of(Limits()), **{"per_caller": None, **bounds})


def ids_of(text: str) -> list[int]:
    return [ALPHABET.index(letter) + 1 for letter in text]


def periodic(prompt: str, length: int) -> str:
    """What the periodic model must say after a prompt."""
    first = ALPHABET.index(prompt[-1]) + 1 if prompt else 0
    return "".join(ALPHABET[(first + offset) % len(ALPHABET)] for offset in range(length))


async def deltas_of(job: GenerationJob) -> list[Delta]:
    """All deltas of a finished job."""
    return [delta async for parts in job.output.batches(1 << 30) for delta in parts]


def text_of(deltas: list[Delta], index: int = 0) -> str:
    return "".join(delta.text for delta in deltas if delta.index == index)


@pytest.fixture
def make_bench() -> Callable[..., Bench]:
    """Builds a bench; options are those of EngineConfig, and the model's seconds per token."""

    def build(*, seconds_per_token: float = 0.0, **config: Any) -> Bench:
        clock = Clock()
        model = PeriodicModel(clock, seconds_per_token)
        config = {"batch_sizes": (1, 2, 4), **config}
        engine = Engine(model, TOKEN_BYTES, EngineConfig(**config), clock=clock, work_clock=clock)
        return Bench(engine, model, clock)

    return build


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
