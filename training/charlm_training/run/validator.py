"""Validates a model while it trains: scores a slice of text, draws samples, keeps the best."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_training.budget import Budget, Clock
from charlm_training.corpus.dataset import Data, EncodedText
from charlm_training.evaluation.batched import score_slice
from charlm_training.evaluation.sample import sample_text
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup
from charlm_training.run.model_writer import ModelWriter

# Large enough to rank the checkpoints of one run, small enough to be quick.
SLICE_TOKENS = 16_384
# Saving takes time, so improvements in quick succession are saved together.
SAVE_INTERVAL_S = 15.0
# Both protocols of a stream read the text once, the second with a warm-up.
READINGS_PER_EVALUATION = 2.2
SLICES_AT_END = 2  # of the last weights, and of their mean
# For the samples, the page (0.3 s for its two plots) and the end of the process; a save of the best
# and one of the end; and for a machine that is slower at the end than at the start.
ENDING_S, NUM_SAVES, CAUTION = 0.9, 2, 1.2
# The largest share of the wall-clock time for evaluation; a longer text is cut to fit.
MOST_SHARE = 0.25


@dataclass(slots=True)
class FinalEvaluation:
    """The text of the final evaluation, and the latest estimate of its duration."""

    part: EncodedText
    seconds_per_token: float
    save_s: float = 0.0

    @property
    def seconds(self) -> float:
        readings = 1.0 if self.part.is_lines else READINGS_PER_EVALUATION
        num_tokens = len(self.part.ids_N) - 1
        num_read = readings * num_tokens + SLICES_AT_END * min(num_tokens, SLICE_TOKENS)
        return num_read * self.seconds_per_token * CAUTION + NUM_SAVES * self.save_s + ENDING_S

    def cut_to(self, most_s: float) -> None:
        """Shorten the text to its beginning, so that its evaluation takes at most this long."""
        if self.seconds > most_s:
            num_tokens = len(self.part.ids_N) - 1
            self.part = self.part.first(int(num_tokens * most_s / self.seconds))


@dataclass(slots=True)
class Validator:
    """Keeps the best weights in memory, and has `writer` save them at intervals.

    Every slice it scores also measures how long the final evaluation will take, and so how much of
    a wall clock must be reserved for it. Of several processes the first one validates for all.
    """

    model: LanguageModel
    data: Data
    seed: int
    writer: ModelWriter
    clock: Clock
    budget: Budget
    save_s: float = 0.0
    group: ProcessGroup = SINGLE_PROCESS
    final: FinalEvaluation = field(init=False)
    best: dict[str, Tensor] | None = field(init=False, default=None)
    """The best weights so far; None before any were kept."""
    _saved_at: float = field(init=False)

    def __post_init__(self) -> None:
        self._saved_at = self.clock()
        self.final = FinalEvaluation(self.data.validation, 0.0, self.save_s)
        self.score()
        total_s = self.budget.seconds()
        if total_s is not None:
            self.final.cut_to(MOST_SHARE * total_s)
            self.budget.reserve(self.final.seconds)

    @property
    def tokens_per_character(self) -> float:
        return self.data.train.tokens_per_character

    def score(self) -> float:
        return self.group.run_on_first(self._score)

    def _score(self) -> float:
        began = self.clock()
        measured = score_slice(self.model, self.data.validation, SLICE_TOKENS)
        seconds_per_token = (self.clock() - began) / measured.num_tokens
        # The mean of old and new: a single slow or fast measurement must not decide.
        before = self.final.seconds_per_token or seconds_per_token
        self.final.seconds_per_token = (before + seconds_per_token) / 2
        self.budget.reserve(self.final.seconds)
        return measured.nats_per_token

    def sample(self) -> str:
        return self.group.run_on_first(
            lambda: sample_text(
                self.model.on_cpu(), self.data.vocabulary, self.data.unit, self.seed
            )
        )

    def keep_best(self) -> None:
        """The weights as they are now are the best so far."""
        if not self.group.is_first:
            return
        self.best = copy.deepcopy(self.model.state_dict())
        began = self.clock()
        if began - self._saved_at >= SAVE_INTERVAL_S:
            self.writer.save_best(self.model)
            self._saved_at = self.clock()
            self.final.save_s = max(self.final.save_s, self._saved_at - began)

    def restore_best(self) -> None:
        """Give the model its best weights again."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
