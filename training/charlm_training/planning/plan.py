"""Chooses size, batch and schedule before the first step, from the flags, the text and a probe."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

import torch

from charlm_model.config import ModelConfig
from charlm_model.devices import CPU
from charlm_model.families.registry import build
from charlm_training.budget import Budget, Clock, Throughput
from charlm_training.corpus.dataset import Data
from charlm_training.corpus.windows import (
    BatchShape,
    DocumentWindows,
    StreamWindows,
    Windows,
    document_shape,
    stream_shape,
)
from charlm_training.planning.options import SizeOptions
from charlm_training.planning.presets import RECIPES, ModelSize, Recipe, choose_size, dropout_for
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup
from charlm_training.state_tree import Record
from charlm_training.step.learner import Learner

T = TypeVar("T", int, float)

# Long enough to be repeatable, short against a budget of a minute.
PROBE_S, PROBE_STEPS = 0.3, 4
# A probe takes at most this share of the wall-clock time, or two steps.
PROBE_SHARE = 0.03
PROBE_RATE = 1e-4


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """All choices made before training. The same plan gives the same model."""

    config: ModelConfig
    shape: BatchShape
    learning_rate: float
    clip_norm: float
    weight_decay: float
    muon_rate: float
    notices: tuple[str, ...] = ()

    def learner(
        self, data: Data, group: ProcessGroup = SINGLE_PROCESS, device: torch.device = CPU
    ) -> Learner:
        # Probing drew random numbers too; the run itself must not depend on that.
        torch.manual_seed(self.shape.seed)
        return Learner(
            build(self.config).to(device),  # drawn by the processor: the same weights anywhere
            windows_of(data, self.shape.share_of(group.rank, group.size)),
            clip_norm=self.clip_norm,
            weight_decay=self.weight_decay,
            muon_rate=self.muon_rate,
            group=group,
        )

    def to_record(self) -> Record:
        return {**asdict(self), "config": self.config.to_json()}

    @classmethod
    def from_record(cls, record: Record) -> Plan:
        config, shape = ModelConfig.from_json(record["config"]), BatchShape(**record["shape"])
        return cls(**{**record, "config": config, "shape": shape})

    def settings(self) -> dict[str, int | float]:
        """The settings of a run beside the sizes of the model."""
        return {
            "batch_size": self.shape.batch_size,
            "window_length": self.shape.length,
            "learning_rate": self.learning_rate,
            "weight_decay": self.weight_decay,
            "muon_rate": self.muon_rate,
            "clip_norm": self.clip_norm,
        }


def windows_of(data: Data, shape: BatchShape) -> Windows:
    """Windows of one long text, or of lines."""
    kind = StreamWindows if data.unit == "stream" else DocumentWindows
    return kind(data.train.ids_N, shape)


@dataclass(slots=True)
class Planner:
    """Chooses a plan for one family, one text and one budget."""

    family: str
    data: Data
    budget: Budget
    options: SizeOptions
    clock: Clock
    group: ProcessGroup = SINGLE_PROCESS
    device: torch.device = CPU
    _speeds: dict[ModelSize, float] = field(default_factory=dict)

    def plan(self, seed: int) -> Plan:
        shape, notices = self._shape(seed)
        size = self._size(shape)
        plan = self._plan_for(size, shape)
        if self.options.dropout is None:
            train_tokens = len(self.data.train.ids_N)
            dropout = dropout_for(
                self._recipe(),
                epochs=self._affordable_tokens(size, shape) / train_tokens,
                parameters_per_token=self._num_parameters(size) / train_tokens,
            )
            plan = replace(plan, config=replace(plan.config, dropout=dropout))
        return replace(plan, notices=notices)

    def _shape(self, seed: int) -> tuple[BatchShape, tuple[str, ...]]:
        recipe, ids_N = self._recipe(), self.data.train.ids_N
        wanted = BatchShape(
            batch_size=given(self.options.batch_size, recipe.batch_size),
            length=given(self.options.window_length, recipe.window_length),
            seed=seed,
            fresh_share=recipe.fresh_share,
        )
        if self.data.unit == "line":
            return document_shape(ids_N, wanted), ()
        shape = stream_shape(len(ids_N), wanted)
        return shape, () if shape == wanted else (reduced_notice(wanted, shape, self.data),)

    def _size(self, shape: BatchShape) -> ModelSize:
        if self.options.hidden_size is not None:
            return self._nearest(self.options.hidden_size)
        return choose_size(
            self._recipe().sizes,
            num_parameters=self._num_parameters,
            affordable_tokens=lambda size: self._affordable_tokens(size, shape),
            train_tokens=len(self.data.train.ids_N),
        )

    def _nearest(self, hidden_size: int) -> ModelSize:
        """The preset nearest to a width given as a flag, with that width."""
        sizes = self._recipe().sizes
        size = min(sizes, key=lambda size: abs(size.hidden_size - hidden_size))
        return replace(size, hidden_size=hidden_size)

    def _num_parameters(self, size: ModelSize) -> int:
        """Parameters that multiply every token, so without the embedding, which is looked up."""
        named = build(self._config(size)).named_parameters()
        return sum(each.numel() for name, each in named if not name.startswith("embedding."))

    def _affordable_tokens(self, size: ModelSize, shape: BatchShape) -> float:
        return self.budget.affordable_tokens(
            Throughput(
                tokens_per_step=shape.batch_size * shape.length,
                tokens_per_epoch=len(self.data.train.ids_N),
                measure_tokens_per_s=lambda: self._speed(size, shape),
            )
        )

    def _speed(self, size: ModelSize, shape: BatchShape) -> float:
        if size not in self._speeds:
            learner = self._plan_for(size, shape).learner(self.data, self.group, self.device)
            most_s = PROBE_SHARE * (self.budget.seconds() or math.inf)
            self._speeds[size] = tokens_per_s(learner, self.clock, self.group, most_s)
        return self._speeds[size]

    def _plan_for(self, size: ModelSize, shape: BatchShape) -> Plan:
        recipe, options = self._recipe(), self.options
        return Plan(
            config=self._config(size),
            shape=shape,
            learning_rate=given(options.learning_rate, recipe.learning_rate),
            clip_norm=recipe.clip_norm,
            weight_decay=recipe.weight_decay,
            muon_rate=recipe.muon_rate,
        )

    def _config(self, size: ModelSize) -> ModelConfig:
        recipe, options = self._recipe(), self.options
        # A kernel of one token means just that: the input is the token alone.
        most_pair_rows = 0 if options.kernel_size == 1 else recipe.most_pair_rows
        return ModelConfig(
            family=self.family,
            vocab_size=self.data.vocabulary.size,
            unit=self.data.unit,
            embedding_size=given(options.embedding_size, recipe.embedding_size),
            hidden_size=size.hidden_size,
            num_layers=given(options.num_layers, size.num_layers),
            num_heads=given(options.num_heads, size.num_heads),
            dropout=given(options.dropout, 0.0),
            context_length=given(options.context_length, recipe.context_length),
            kernel_size=given(options.kernel_size, recipe.kernel_size),
            pair_rows=min(self.data.vocabulary.size**2, most_pair_rows),
        )

    def _recipe(self) -> Recipe:
        return RECIPES[self.family]


def given(by_hand: T | None, otherwise: T) -> T:
    """The value of a flag, even 0, which is refused later."""
    return otherwise if by_hand is None else by_hand


def tokens_per_s(
    learner: Learner, clock: Clock, group: ProcessGroup = SINGLE_PROCESS, most_s: float = math.inf
) -> float:
    """The training speed of a learner: its fastest step, since a busy machine only adds time.

    With several processes, the speed of all together, by the clock of the first.
    """
    began, fastest, steps = clock(), 0.0, 0
    learner.step(PROBE_RATE)

    def is_enough() -> bool:
        if not steps:
            return False
        elapsed_s = clock() - began
        return elapsed_s > most_s or (steps >= PROBE_STEPS and elapsed_s >= PROBE_S)

    while not group.broadcast_number(is_enough()):
        since = clock()
        num_targets = learner.step(PROBE_RATE).num_targets
        fastest = max(fastest, num_targets / max(clock() - since, 1e-9))
        steps += 1
    return fastest


def reduced_notice(wanted: BatchShape, shape: BatchShape, data: Data) -> str:
    return (
        f"The training text is short ({data.train.num_characters:,} characters): batch and window "
        f"were reduced from {wanted.batch_size} x {wanted.length} to "
        f"{shape.batch_size} x {shape.length}. Expect overfitting."
    )
