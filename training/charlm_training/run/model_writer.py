"""Writes the model of a run with its report: the best so far during training, and the final one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from charlm_model import checkpoint
from charlm_model.language_model import LanguageModel
from charlm_training.corpus.dataset import Data, EncodedText
from charlm_training.device import described
from charlm_training.errors import OutputFailed
from charlm_training.evaluation.batched import evaluate
from charlm_training.evaluation.samples_by_temperature import samples_by_temperature
from charlm_training.monitoring.events import Listener, Noticed
from charlm_training.planning.options import TrainOptions
from charlm_training.process_group import ProcessGroup
from charlm_training.report.report import (
    Report,
    data_section,
    evaluations_section,
    model_section,
    versions_section,
)
from charlm_training.run.stopwatch import Stopwatch


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """A model, how it was trained, and the text for its final evaluation."""

    model: LanguageModel
    evaluated: EncodedText
    stopped_by: str = "budget"
    steps: int = 0
    epochs: float = 1.0
    tokens: int
    settings: dict[str, int | float]


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelWriter:
    """Knows what every report says: the options, the text, the device and the elapsed time."""

    options: TrainOptions
    data: Data
    group: ProcessGroup
    device: torch.device
    stopwatch: Stopwatch
    listener: Listener

    def save_best(self, model: LanguageModel) -> None:
        """The best so far. If the disk is full, a notice says so and training continues."""
        try:
            self.save(model, self._report(model))
        except OutputFailed as error:
            self.listener(Noticed(text=f"{error} Training goes on."))

    def save(self, model: LanguageModel, report: Report) -> None:
        """Raises OutputFailed when the files cannot be written."""
        out = self.options.out
        try:
            checkpoint.save(out, model.on_cpu(), self.data.vocabulary, report)
        except OSError as error:
            raise OutputFailed(
                f"Cannot save the checkpoint in {out}: {error.strerror}. What was "
                "there before is untouched."
            ) from error

    def final_report(self, trained: TrainedModel, baseline: Report) -> Report:
        """With the final evaluation, which takes most of the time of this call."""
        evaluations = evaluate(trained.model, trained.evaluated)
        model = trained.model.on_cpu()
        return {
            **self._report(model),
            "validation": evaluations_section(evaluations),
            "evaluated_tokens": len(trained.evaluated.ids_N) - 1,
            "evaluated_characters": trained.evaluated.num_characters,
            "ngram": baseline,
            "samples": samples_by_temperature(model, self.data.vocabulary, self.options.seed),
            "training": {
                **self._training_section(),
                **trained.settings,
                "is_finished": True,
                "stopped_by": trained.stopped_by,
                "steps": trained.steps,
                "epochs": trained.epochs,
                "tokens": trained.tokens,
            },
        }

    def _report(self, model: LanguageModel) -> Report:
        """What is known before the final evaluation."""
        return {
            "model": model_section(model),
            "data": data_section(self.data, self.options.data.validation_fraction),
            "training": self._training_section(),
            "versions": versions_section(),
        }

    def _training_section(self) -> Report:
        return {
            "command": self.options.command,
            "seed": self.options.seed,
            "processes": self.group.size,
            "device": described(self.device),
            "is_finished": False,
            "elapsed_s": round(self.stopwatch.elapsed_s(), 3),
        }
