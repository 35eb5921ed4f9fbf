"""Equal cost for all families: the same seconds, parameters or floating-point operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_training.budget import Clock, TimeBudget
from charlm_training.corpus.dataset import Data
from charlm_training.planning.options import SizeOptions
from charlm_training.planning.plan import Plan, Planner, tokens_per_s

MATCHES = ("seconds", "parameters", "flops")
# One shape for all families, so that the same seed gives every one the same windows.
BATCH_SIZE, WINDOW_LENGTH = 32, 64
# A layout of its own would make the transformer's parameters jump with its width.
TRANSFORMER_LAYERS, TRANSFORMER_HEADS, WIDEST_UNITS = 4, 2, 512
WIDTH_UNIT = {"transformer": 4 * TRANSFORMER_HEADS}
# Forward is one multiply and one add for each weight; backward is twice that.
FLOPS_PER_WEIGHT = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One family with its sizes, limited by seconds or by steps."""

    family: str
    size: SizeOptions
    seconds: float | None = None
    steps: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EntryPlanner:
    """Makes an entry for every family."""

    data: Data
    seconds: float
    clock: Clock

    def entries(self, families: list[str], match: str) -> list[Entry]:
        neural = [family for family in families if family != "ngram"]
        makers: dict[str, Callable[[list[str]], list[Entry]]] = {
            "seconds": self._by_seconds,
            "parameters": self._by_parameters,
            "flops": self._by_flops,
        }
        counted = Entry(family="ngram", size=SizeOptions(), seconds=self.seconds)
        made = {entry.family: entry for entry in (*makers[match](neural), counted)}
        return [made[family] for family in families]

    def _by_seconds(self, families: list[str]) -> list[Entry]:
        return [
            Entry(family=family, size=shape_options(), seconds=self.seconds) for family in families
        ]

    def _by_parameters(self, families: list[str]) -> list[Entry]:
        """As many parameters as the smallest of the families' own choices for these seconds.

        No family has embeddings of pairs or earlier tokens: such a table would outweigh the layers.
        """
        if not families:
            return []
        options = replace(shape_options(), kernel_size=1)
        configs = {family: self._plan(family, options).config for family in families}
        wanted = min(build(config).num_parameters for config in configs.values())
        return [
            Entry(family=family, size=sized(options, config, wanted), seconds=self.seconds)
            for family, config in configs.items()
        ]

    def _by_flops(self, families: list[str]) -> list[Entry]:
        """As many operations as the family that does the fewest in these seconds."""
        plans = {family: self._plan(family, shape_options()) for family in families}
        costs = {family: flops_per_token(build(plan.config)) for family, plan in plans.items()}
        most = min((self._tokens(plans[each]) * costs[each] for each in families), default=0.0)
        return [
            Entry(
                family=family,
                size=replace(shape_options(), hidden_size=plans[family].config.hidden_size),
                steps=max(round(most / costs[family] / tokens_per_step(plans[family])), 1),
            )
            for family in families
        ]

    def _plan(self, family: str, options: SizeOptions) -> Plan:
        budget = TimeBudget(self.seconds, self.clock)
        return Planner(family, self.data, budget, options, self.clock).plan(seed=0)

    def _tokens(self, plan: Plan) -> float:
        return tokens_per_s(plan.learner(self.data), self.clock) * self.seconds


def sized(options: SizeOptions, config: ModelConfig, num_parameters: int) -> SizeOptions:
    """The options with the width that comes nearest to so many parameters."""
    width = width_for(config, num_parameters)
    if config.family != "transformer":
        return replace(options, hidden_size=width)
    return replace(
        options, hidden_size=width, num_layers=TRANSFORMER_LAYERS, num_heads=TRANSFORMER_HEADS
    )


def shape_options() -> SizeOptions:
    return SizeOptions(batch_size=BATCH_SIZE, window_length=WINDOW_LENGTH)


def tokens_per_step(plan: Plan) -> int:
    return plan.shape.batch_size * plan.shape.length


def width_for(config: ModelConfig, num_parameters: int) -> int:
    """The width whose exact number of parameters is nearest to what is wanted."""
    unit = WIDTH_UNIT.get(config.family, 1)
    if config.family == "transformer":
        config = replace(config, num_layers=TRANSFORMER_LAYERS, num_heads=TRANSFORMER_HEADS)

    def count(units: int) -> int:
        with torch.device("meta"):  # shapes alone, no memory
            return build(replace(config, hidden_size=units * unit)).num_parameters

    low, high = 1, WIDEST_UNITS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= num_parameters else (low, middle)
    return unit * min((low, high), key=lambda units: abs(count(units) - num_parameters))


def flops_per_token(model: LanguageModel) -> float:
    """Floating-point operations of training on one token, by the weights that multiply it.

    A look-up multiplies nothing; attention multiplies each token with every one in its window.
    """
    config = model.config
    weights = sum(
        parameter.numel()
        for name, parameter in model.named_parameters()
        if parameter.ndim == 2 and not name.startswith("embedding.")
    )
    is_attending = config.family == "transformer"
    attended = 2 * config.num_layers * config.hidden_size * config.context_length
    return float(FLOPS_PER_WEIGHT * (weights + (attended if is_attending else 0)))
