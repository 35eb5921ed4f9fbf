"""One run: from a corpus to a checkpoint with its report, all but the reading in the budget."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from charlm_model import checkpoint
from charlm_model.language_model import LanguageModel
from charlm_training.baseline import baseline_section
from charlm_training.budget import Budget, Clock
from charlm_training.corpus import open_corpus
from charlm_training.data import Data, read_data
from charlm_training.errors import OutputFailed
from charlm_training.evaluation import evaluate
from charlm_training.events import Finished, Listener, Noticed
from charlm_training.fitting import Fitted, Task, fitter_for
from charlm_training.keeper import Keeper, owner_of
from charlm_training.learner import StepResult
from charlm_training.options import TrainOptions
from charlm_training.record import Record
from charlm_training.report import (
    Report,
    data_section,
    evaluations_section,
    model_section,
    versions_section,
)
from charlm_training.state_store import StateStore
from charlm_training.temperatures import samples_by_temperature
from charlm_training.threads import governed_threads
from charlm_training.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A finished run. `stopped_by` is 'budget', 'interrupted' or 'diverged'."""

    report: Report
    stopped_by: str


@dataclass(slots=True)
class Run:
    """One training run and what its parts share."""

    options: TrainOptions
    listener: Listener
    is_interrupted: Callable[[], bool]
    clock: Clock = time.monotonic
    _began: float = field(init=False, default=0.0)

    def train(self) -> Outcome:
        """Read, fit, evaluate and save, in a workspace that is prepared."""
        options, fitter = self.options, fitter_for(self.options.family)
        workspace = Workspace(options.out)
        corpus = open_corpus(options.corpus)
        findings = corpus.scan()
        self._began = self.clock()
        budget = options.start_budget(self.clock)
        keeper = self._keeper(workspace, findings.sha256)
        saved = keeper.load() if options.resume else None
        if saved is not None:
            self._began -= saved["elapsed_s"]
        data = read_data(corpus, findings, options.data, workspace.tokens)
        for notice in data.notices():
            self.listener(Noticed(text=notice))
        baseline = baseline_section(data, budget, options.seed)
        with governed_threads(budget, self.clock) as after_step:
            task = self._task(data, budget, after_step)
            fitted = fitter(
                replace(task, keep=self._kept_by(keeper), resumed=saved and saved["fit"])
            )
            report = self._final_report(data, fitted, baseline)
        self._save(fitted.model, data, report)
        if fitted.stopped_by != "interrupted":
            keeper.store.clear()
        workspace.clean()
        self.listener(Finished(stopped_by=fitted.stopped_by, report=report))
        return Outcome(report=report, stopped_by=fitted.stopped_by)

    def _keeper(self, workspace: Workspace, sha256: str) -> Keeper:
        return Keeper(
            StateStore(workspace.state),
            owner_of(self.options, sha256),
            self.options.save_interval_s,
            self.clock,
            self.listener,
        )

    def _kept_by(self, keeper: Keeper) -> Callable[[Callable[[], Record], bool], None]:
        def keep(make_fit: Callable[[], Record], at_once: bool) -> None:
            keeper.keep(
                lambda: {"fit": make_fit(), "elapsed_s": self.clock() - self._began}, at_once
            )

        return keep

    def _task(self, data: Data, budget: Budget, after_step: Callable[[StepResult], None]) -> Task:
        options = self.options
        return Task(
            family=options.family,
            data=data,
            budget=budget,
            size=options.size,
            seed=options.seed,
            clock=self.clock,
            listener=self.listener,
            is_interrupted=self.is_interrupted,
            after_step=after_step,
            save_early=lambda model: self._save(model, data, self._report(data, model)),
        )

    def _final_report(self, data: Data, fitted: Fitted, baseline: Report) -> Report:
        evaluations = evaluate(fitted.model, fitted.evaluated)
        return {
            **self._report(data, fitted.model),
            "validation": evaluations_section(evaluations),
            "evaluated_tokens": len(fitted.evaluated.ids_N) - 1,
            "evaluated_characters": fitted.evaluated.num_characters,
            "ngram": baseline,
            "samples": samples_by_temperature(fitted.model, data.vocabulary, self.options.seed),
            "training": {
                **self._training_section(),
                **fitted.settings,
                "is_finished": True,
                "stopped_by": fitted.stopped_by,
                "steps": fitted.steps,
                "epochs": fitted.epochs,
                "tokens": fitted.tokens,
            },
        }

    def _report(self, data: Data, model: LanguageModel) -> Report:
        """What is known before the final evaluation."""
        return {
            "model": model_section(model),
            "data": data_section(data, self.options.data.validation_fraction),
            "training": self._training_section(),
            "versions": versions_section(),
        }

    def _training_section(self) -> Report:
        return {
            "command": self.options.command,
            "seed": self.options.seed,
            "is_finished": False,
            "elapsed_s": round(self.clock() - self._began, 3),
        }

    def _save(self, model: LanguageModel, data: Data, report: Report) -> None:
        try:
            checkpoint.save(self.options.out, model, data.vocabulary, report)
        except OSError as error:
            raise OutputFailed(
                f"Cannot save the checkpoint in {self.options.out}: {error.strerror}. What was "
                "there before is untouched."
            ) from error
