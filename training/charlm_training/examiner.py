"""Judges a model while it trains: a slice of validation text, a sample, and the best so far."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_training.budget import Clock
from charlm_training.data import Data, Part
from charlm_training.evaluation import score_slice
from charlm_training.sample import sample_text

# Enough to tell the checkpoints of one run apart, and quick.
SLICE_TOKENS = 16_384
# Putting a checkpoint on disk takes a moment, so improvements in quick succession share one.
SAVE_INTERVAL_S = 15.0
# Both protocols of a stream read the text once, the second with a warm-up.
READINGS_PER_EVALUATION = 2.2
# For the save, and for a machine that is slower at the end than at the start.
SAVE_S, CAUTION = 0.5, 1.2
# Evaluation may take this share of a wall clock; a longer validation text is cut to fit.
MOST_SHARE = 0.25


@dataclass(slots=True)
class SliceExaminer:
    """Keeps the best weights in memory, and lets `save` put them on disk now and then."""

    model: LanguageModel
    data: Data
    seed: int
    save: Callable[[], None]
    clock: Clock
    best: dict[str, Tensor] | None = None
    _saved_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved_at = self.clock()

    @property
    def tokens_per_character(self) -> float:
        return self.data.train.tokens_per_character

    def score(self) -> float:
        return score_slice(self.model, self.data.validation, SLICE_TOKENS).nats_per_token

    def sample(self) -> str:
        return sample_text(self.model, self.data.vocabulary, self.data.unit, self.seed)

    def keep(self) -> None:
        self.best = copy.deepcopy(self.model.state_dict())
        if self.clock() - self._saved_at >= SAVE_INTERVAL_S:
            self.save()
            self._saved_at = self.clock()

    def restore_best(self) -> None:
        """Undo whatever came after the best."""
        if self.best is not None:
            self.model.load_state_dict(self.best)


@dataclass(frozen=True, slots=True)
class FinalEvaluation:
    """What will be evaluated at the end, and how long that is expected to take."""

    part: Part
    seconds: float


def plan_final_evaluation(
    model: LanguageModel, part: Part, clock: Clock, total_s: float | None
) -> FinalEvaluation:
    """All of the validation part, unless a wall clock leaves time for its beginning only."""
    began = clock()
    measured = score_slice(model, part, SLICE_TOKENS)
    seconds_per_token = max(clock() - began, 1e-9) / measured.num_tokens * CAUTION
    readings = 1.0 if part.is_lines else READINGS_PER_EVALUATION
    num_tokens = len(part.ids_N) - 1
    if total_s is not None:
        affordable = MOST_SHARE * total_s / (readings * seconds_per_token)
        num_tokens = min(num_tokens, int(affordable))
    part = part.first(num_tokens)
    return FinalEvaluation(part, readings * seconds_per_token * (len(part.ids_N) - 1) + SAVE_S)
