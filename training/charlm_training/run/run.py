"""One run: from a corpus to a checkpoint with its report, all but the reading in the budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from charlm_model.devices import CPU
from charlm_model.language_model import LanguageModel
from charlm_training.budget import Budget, Clock
from charlm_training.corpus.dataset import Data, read_data
from charlm_training.corpus.reader import open_corpus
from charlm_training.device import training_device
from charlm_training.errors import NotPossible, OutputFailed
from charlm_training.monitoring.events import Finished, Listener, Noticed, Planned
from charlm_training.planning.options import TrainOptions
from charlm_training.planning.plan import Plan, Planner
from charlm_training.planning.shared_budget import shared
from charlm_training.planning.size_flags import named_as_flags
from charlm_training.process_group import SINGLE_PROCESS, ProcessGroup
from charlm_training.report.report import Report
from charlm_training.run.checkpointer import Checkpointer, owner_of
from charlm_training.run.model_writer import ModelWriter, TrainedModel
from charlm_training.run.ngram_baseline import DEFAULT_ORDER, baseline_section, fit_ngram
from charlm_training.run.run_state_store import RunStateStore
from charlm_training.run.stopwatch import Stopwatch
from charlm_training.run.trainer import Trainer
from charlm_training.run.validator import Validator
from charlm_training.run.warm_up import warm_up
from charlm_training.run.workspace import Workspace
from charlm_training.state_tree import Record
from charlm_training.step.threads import ThreadGovernor, governed_threads


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOutcome:
    """A finished run. `stopped_by` is 'budget', 'interrupted' or 'diverged'."""

    report: Report
    stopped_by: str


@dataclass(slots=True)
class Run:
    """Builds the components of one training run and runs them; of several processes, in each."""

    options: TrainOptions
    listener: Listener
    is_interrupted: Callable[[], bool]
    clock: Clock = time.monotonic
    group: ProcessGroup = SINGLE_PROCESS
    _device: torch.device = field(init=False, default=CPU)
    _save_s: float = field(init=False, default=0.0)
    _budget: Budget = field(init=False)
    _checkpointer: Checkpointer = field(init=False)
    _writer: ModelWriter = field(init=False)

    def train(self) -> RunOutcome:
        """Read, fit, evaluate and save. The workspace must be prepared."""
        options, workspace = self.options, Workspace(self.options.out)
        self._device = self._choose_device()
        self._save_s = self._warm_up(workspace)
        corpus = open_corpus(options.corpus)
        stats = corpus.scan()
        stopwatch = Stopwatch(self.clock)
        self._require_same(stats.sha256)
        self._budget = shared(options.start_budget(self.clock), self.group)
        self._checkpointer = self._build_checkpointer(workspace, stats.sha256, stopwatch)
        saved = self._checkpointer.load() if options.resume else None
        with self._token_directory(workspace) as directory:
            data = read_data(corpus, stats, options.data, directory)
            for notice in data.notices():
                self.listener(Noticed(text=notice))
            self._writer = self._build_writer(data, stopwatch)
            baseline = self.group.run_on_first(
                lambda: baseline_section(data, self._budget, options.seed)
            )
            with self._governed_threads() as threads:
                is_ngram = options.family == "ngram"
                trained = self._count(data) if is_ngram else self._train(data, threads, saved)
                report = self.group.run_on_first(
                    lambda: self._writer.final_report(trained, baseline)
                )
            self._finish(workspace, trained, report)
        self.listener(Finished(stopped_by=trained.stopped_by, report=report))
        return RunOutcome(report=report, stopped_by=trained.stopped_by)

    def _count(self, data: Data) -> TrainedModel:
        """The n-gram: one pass and no gradient, whatever the budget."""
        order = self.options.size.context_length
        order = DEFAULT_ORDER if order is None else order
        model, settings = fit_ngram(data, order=order), {"order": order}
        self._announce(data, model, settings)
        evaluated = self._build_validator(data, model).final.part
        tokens = len(data.train.ids_N)
        return TrainedModel(model=model, evaluated=evaluated, tokens=tokens, settings={**settings})

    def _train(
        self, data: Data, threads: ThreadGovernor | None, saved: Record | None
    ) -> TrainedModel:
        """Every other family: plan, train inside the budget, return the best."""
        plan = self._plan(data, saved)
        for notice in plan.notices:
            self.listener(Noticed(text=notice))
        learner = plan.learner(data, self.group, self._device)
        self._announce(data, learner.model, plan.settings())
        validator = self._build_validator(data, learner.model)
        self._budget.begin_training()
        trainer = Trainer(
            plan=plan,
            learner=learner,
            validator=validator,
            budget=self._budget,
            clock=self.clock,
            listener=self.listener,
            is_interrupted=self.is_interrupted,
            checkpointer=self._checkpointer,
            threads=threads,
            group=self.group,
        )
        if saved is not None:
            trainer.load_state_dict(saved)
        stopped_by = trainer.train()
        validator.restore_best()
        return TrainedModel(
            model=learner.model,
            evaluated=validator.final.part,
            stopped_by=stopped_by,
            steps=learner.spent.steps,
            epochs=learner.spent.epochs,
            tokens=learner.tokens,
            settings=plan.settings(),
        )

    def _plan(self, data: Data, saved: Record | None) -> Plan:
        """On resumption, the plan of the earlier process: probing this one would choose another."""
        if saved is not None:
            return Plan.from_record(saved["plan"])
        options = self.options
        planner = Planner(
            options.family, data, self._budget, options.size, self.clock, self.group, self._device
        )
        with named_as_flags():
            return planner.plan(options.seed)

    def _finish(self, workspace: Workspace, trained: TrainedModel, report: Report) -> None:
        if not self.group.is_first:
            return
        self._writer.save(trained.model, report)
        if trained.stopped_by != "interrupted":
            self._checkpointer.store.clear()
        workspace.clean()

    def _warm_up(self, workspace: Workspace) -> float:
        """Seconds that saving takes. Only where a clock will run, and where the model is saved."""
        if not self.group.is_first or not self.options.is_timed:
            return 0.0
        try:
            return warm_up(self.options.family, workspace.run, self.clock, self._device)
        except OSError as error:
            raise OutputFailed(f"Cannot write in {workspace.run}: {error.strerror}.") from error

    def _choose_device(self) -> torch.device:
        """Counting has no use for a GPU."""
        if self.options.family == "ngram":
            return CPU
        return training_device(self.options.device, local_rank=self.group.local_rank)

    def _governed_threads(self) -> AbstractContextManager[ThreadGovernor | None]:
        if self._device != CPU:
            return nullcontext()
        return governed_threads(self._budget, self.clock, self.group)

    def _require_same(self, sha256: str) -> None:
        """A run is of one text, however many hosts have a copy of it."""
        first = self.group.run_on_first(lambda: sha256)
        if first != sha256:
            raise NotPossible(
                f"The text of process {self.group.rank} is not that of process 0 (SHA-256 "
                f"{sha256[:12]} and {first[:12]}); give every host the same files."
            )

    @contextmanager
    def _token_directory(self, workspace: Workspace) -> Iterator[Path]:
        """Of the first process, in the workspace; of others, a temporary one on their own host."""
        if self.group.is_first:
            yield workspace.tokens
        else:
            with TemporaryDirectory(prefix="charlm-tokens-") as directory:
                yield Path(directory)

    def _build_checkpointer(
        self, workspace: Workspace, sha256: str, stopwatch: Stopwatch
    ) -> Checkpointer:
        return Checkpointer(
            RunStateStore(workspace.state),
            owner_of(self.options, sha256),
            self.options.save_interval_s,
            stopwatch,
            self.listener,
            self.group,
        )

    def _build_writer(self, data: Data, stopwatch: Stopwatch) -> ModelWriter:
        return ModelWriter(
            options=self.options,
            data=data,
            group=self.group,
            device=self._device,
            stopwatch=stopwatch,
            listener=self.listener,
        )

    def _build_validator(self, data: Data, model: LanguageModel) -> Validator:
        return Validator(
            model=model,
            data=data,
            seed=self.options.seed,
            writer=self._writer,
            clock=self.clock,
            budget=self._budget,
            save_s=self._save_s,
            group=self.group,
        )

    def _announce(
        self, data: Data, model: LanguageModel, settings: dict[str, int] | dict[str, int | float]
    ) -> None:
        config = model.config
        self.listener(
            Planned(
                family=config.family,
                num_parameters=model.num_parameters,
                vocabulary=data.vocabulary.kind,
                vocab_size=config.vocab_size,
                unit=data.unit,
                train_characters=data.train.num_characters,
                validation_characters=data.validation.num_characters,
                hidden_size=config.hidden_size,
                num_layers=config.num_layers,
                settings={**settings},
            )
        )
