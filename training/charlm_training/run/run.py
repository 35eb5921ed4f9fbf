"""One run: from a corpus to a checkpoint with its report, all but the reading in the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from charlm_model import checkpoint
from charlm_model.devices import CPU
from charlm_model.language_model import LanguageModel
from charlm_training.budget import Budget, Clock
from charlm_training.corpus.dataset import Data, read_data
from charlm_training.corpus.reader import open_corpus
from charlm_training.device import described, training_device
from charlm_training.errors import NotPossible, OutputFailed
from charlm_training.evaluation.batched import evaluate
from charlm_training.evaluation.samples_by_temperature import samples_by_temperature
from charlm_training.monitoring.events import Finished, Listener, Noticed
from charlm_training.planning.options import TrainOptions
from charlm_training.planning.shared_budget import shared
from charlm_training.process_group import ALONE, Crew
from charlm_training.report.report import (
    Report,
    data_section,
    evaluations_section,
    model_section,
    versions_section,
)
from charlm_training.run.checkpointer import Keeper, owner_of
from charlm_training.run.fitting import Fitted, Task, fitter_for
from charlm_training.run.ngram_baseline import baseline_section
from charlm_training.run.run_state_store import StateStore
from charlm_training.run.warm_up import rehearse
from charlm_training.run.workspace import Workspace
from charlm_training.state_tree import Record
from charlm_training.step.learner import StepResult
from charlm_training.step.threads import governed_threads


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """A finished run. `stopped_by` is 'budget', 'interrupted' or 'diverged'."""

    report: Report
    stopped_by: str


@dataclass(slots=True)
class Run:
    """One training run and what its parts share; of several processes, one of them."""

    options: TrainOptions
    listener: Listener
    is_interrupted: Callable[[], bool]
    clock: Clock = time.monotonic
    crew: Crew = ALONE
    _device: torch.device = field(init=False, default=CPU)
    _began: float = field(init=False, default=0.0)

    def train(self) -> Outcome:
        """Read, fit, evaluate and save, in a workspace that is prepared."""
        options, fitter = self.options, fitter_for(self.options.family)
        workspace = Workspace(options.out)
        self._device = self._choose_device()
        save_s = self._rehearse(workspace)
        corpus = open_corpus(options.corpus)
        findings = corpus.scan()
        self._began = self.clock()
        self._require_same(findings.sha256)
        budget = shared(options.start_budget(self.clock), self.crew)
        keeper = self._keeper(workspace, findings.sha256)
        saved = keeper.load() if options.resume else None
        if saved is not None:
            self._began -= saved["elapsed_s"]
        with self._token_directory(workspace) as directory:
            data = read_data(corpus, findings, options.data, directory)
            for notice in data.notices():
                self.listener(Noticed(text=notice))
            baseline = self.crew.from_first(lambda: baseline_section(data, budget, options.seed))
            with self._governed_threads(budget) as after_step:
                task = self._task(data, budget, after_step, save_s)
                fitted = fitter(
                    replace(task, keep=self._kept_by(keeper), resumed=saved and saved["fit"])
                )
                report = self.crew.from_first(lambda: self._final_report(data, fitted, baseline))
            self._finish(workspace, keeper, fitted, data, report)
        self.listener(Finished(stopped_by=fitted.stopped_by, report=report))
        return Outcome(report=report, stopped_by=fitted.stopped_by)

    def _rehearse(self, workspace: Workspace) -> float:
        """Only where a clock will run, and where the end of the run will be."""
        if not self.crew.is_first or not self.options.is_timed:
            return 0.0
        try:
            return rehearse(self.options.family, workspace.run, self.clock, self._device)
        except OSError as error:
            raise OutputFailed(f"Cannot write in {workspace.run}: {error.strerror}.") from error

    def _choose_device(self) -> torch.device:
        """Counting has no use for a GPU."""
        if self.options.family == "ngram":
            return CPU
        return training_device(self.options.device, number_on_host=self.crew.number_on_host)

    def _governed_threads(
        self, budget: Budget
    ) -> AbstractContextManager[Callable[[StepResult], None]]:
        if self._device != CPU:
            return nullcontext(lambda result: None)
        return governed_threads(budget, self.clock, self.crew)

    def _require_same(self, sha256: str) -> None:
        """A run is of one text, however many hosts have a copy of it."""
        first = self.crew.from_first(lambda: sha256)
        if first != sha256:
            raise NotPossible(
                f"The text of process {self.crew.rank} is not that of process 0 (SHA-256 "
                f"{sha256[:12]} and {first[:12]}); give every host the same files."
            )

    @contextmanager
    def _token_directory(self, workspace: Workspace) -> Iterator[Path]:
        """The first process's is the workspace's; the others' vanish, on whatever host they are."""
        if self.crew.is_first:
            yield workspace.tokens
        else:
            with TemporaryDirectory(prefix="charlm-tokens-") as directory:
                yield Path(directory)

    def _finish(
        self, workspace: Workspace, keeper: Keeper, fitted: Fitted, data: Data, report: Report
    ) -> None:
        if not self.crew.is_first:
            return
        self._save(fitted.model, data, report)
        if fitted.stopped_by != "interrupted":
            keeper.store.clear()
        workspace.clean()

    def _keeper(self, workspace: Workspace, sha256: str) -> Keeper:
        return Keeper(
            StateStore(workspace.state),
            owner_of(self.options, sha256),
            self.options.save_interval_s,
            self.clock,
            self.listener,
            self.crew,
        )

    def _kept_by(self, keeper: Keeper) -> Callable[[Callable[[], Record], bool], None]:
        def keep(make_fit: Callable[[], Record], at_once: bool) -> None:
            keeper.keep(
                lambda: {"fit": make_fit(), "elapsed_s": self.clock() - self._began}, at_once
            )

        return keep

    def _task(
        self, data: Data, budget: Budget, after_step: Callable[[StepResult], None], save_s: float
    ) -> Task:
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
            save_s=save_s,
            crew=self.crew,
            device=self._device,
            save_early=lambda model: self._save_early(model, data),
        )

    def _final_report(self, data: Data, fitted: Fitted, baseline: Report) -> Report:
        evaluations = evaluate(fitted.model, fitted.evaluated)
        model = fitted.model.on_cpu()
        return {
            **self._report(data, model),
            "validation": evaluations_section(evaluations),
            "evaluated_tokens": len(fitted.evaluated.ids_N) - 1,
            "evaluated_characters": fitted.evaluated.num_characters,
            "ngram": baseline,
            "samples": samples_by_temperature(model, data.vocabulary, self.options.seed),
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
            "processes": self.crew.size,
            "device": described(self._device),
            "is_finished": False,
            "elapsed_s": round(self.clock() - self._began, 3),
        }

    def _save_early(self, model: LanguageModel, data: Data) -> None:
        """The best so far. It is in memory too, so the run does without."""
        try:
            self._save(model, data, self._report(data, model))
        except OutputFailed as error:
            self.listener(Noticed(text=f"{error} Training goes on."))

    def _save(self, model: LanguageModel, data: Data, report: Report) -> None:
        try:
            checkpoint.save(self.options.out, model.on_cpu(), data.vocabulary, report)
        except OSError as error:
            raise OutputFailed(
                f"Cannot save the checkpoint in {self.options.out}: {error.strerror}. What was "
                "there before is untouched."
            ) from error
