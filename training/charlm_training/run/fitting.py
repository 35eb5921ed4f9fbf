"""How each family is fitted: by gradients, or by counting. One literal table says which."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from charlm_model.devices import CPU
from charlm_model.language_model import LanguageModel
from charlm_training.budget import Budget, Clock
from charlm_training.corpus.dataset import Data, Part
from charlm_training.errors import InvalidOption
from charlm_training.monitoring.events import Listener, Noticed, Planned, Resumed
from charlm_training.optim.lr_scheduler import Schedule
from charlm_training.optim.weight_average import WeightAverage
from charlm_training.planning.options import SizeOptions
from charlm_training.planning.plan import Plan, Planner
from charlm_training.planning.size_flags import named_as_flags
from charlm_training.process_group import ALONE, Crew
from charlm_training.run.loop import Course, Loop
from charlm_training.run.ngram_baseline import DEFAULT_ORDER, fit_ngram
from charlm_training.run.validator import SliceExaminer
from charlm_training.state_tree import Record
from charlm_training.step.learner import StepResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a fitter is given."""

    family: str
    data: Data
    budget: Budget
    size: SizeOptions
    seed: int
    clock: Clock
    listener: Listener
    is_interrupted: Callable[[], bool]
    save_early: Callable[[LanguageModel], None]
    after_step: Callable[[StepResult], None]
    save_s: float = 0.0
    """What saving a small model took."""
    crew: Crew = ALONE
    device: torch.device = CPU
    keep: Callable[[Callable[[], Record], bool], None] = lambda make_record, at_once: None
    resumed: Record | None = None
    """What `keep` saved in an earlier process."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A model, how it came about, and the text it is to be evaluated on."""

    model: LanguageModel
    evaluated: Part
    stopped_by: str = "budget"
    steps: int = 0
    epochs: float = 1.0
    tokens: int
    settings: dict[str, int | float]


Fitter = Callable[[Task], Fitted]


def fit_by_counting(task: Task) -> Fitted:
    """The n-gram: one pass and no gradient, whatever the budget."""
    order = DEFAULT_ORDER if task.size.context_length is None else task.size.context_length
    model = fit_ngram(task.data, order=order)
    settings: dict[str, int | float] = {"order": order}
    task.listener(_planned(task, model, settings))
    evaluated = _examiner(task, model).final.part
    tokens = len(task.data.train.ids_N)
    return Fitted(model=model, evaluated=evaluated, tokens=tokens, settings=settings)


def fit_by_gradients(task: Task) -> Fitted:
    """Every other family: plan, train inside the budget, and come back with the best."""
    plan = _plan(task)
    for notice in plan.notices:
        task.listener(Noticed(text=notice))
    learner = plan.learner(task.data, task.crew, task.device)
    task.listener(_planned(task, learner.model, plan.settings()))
    examiner = _examiner(task, learner.model)
    task.budget.begin_training()
    course = Course(
        schedule=Schedule(peak=plan.learning_rate),
        budget=task.budget,
        clock=task.clock,
        is_interrupted=lambda: task.crew.any(task.is_interrupted()),
        after_step=task.after_step,
        keep=lambda loop_record, at_once: task.keep(
            lambda: _record(task, plan, examiner, loop_record()), at_once
        ),
    )
    loop = Loop(learner, WeightAverage(learner.model), course, examiner, task.listener)
    if task.resumed is not None:
        _resume(task, examiner, loop, task.resumed)
    stopped_by = loop.run()
    examiner.restore_best()
    return Fitted(
        model=learner.model,
        evaluated=examiner.final.part,
        stopped_by=stopped_by,
        steps=learner.spent.steps,
        epochs=learner.spent.epochs,
        tokens=learner.tokens,
        settings=plan.settings(),
    )


def _plan(task: Task) -> Plan:
    """The plan of the earlier process, because probing this one would choose another."""
    if task.resumed is not None:
        return Plan.from_record(task.resumed["plan"])
    planner = Planner(
        task.family, task.data, task.budget, task.size, task.clock, task.crew, task.device
    )
    with named_as_flags():
        return planner.plan(task.seed)


def _record(task: Task, plan: Plan, examiner: SliceExaminer, loop: Record) -> Record:
    return {
        "plan": plan.to_record(),
        "loop": loop,
        "best": examiner.best,
        "spent_s": task.budget.spent_s(),
        "threads": torch.get_num_threads(),
    }


def _resume(task: Task, examiner: SliceExaminer, loop: Loop, record: Record) -> None:
    examiner.resume(record["best"])
    loop.resume(record["loop"])
    task.budget.carry_over(record["spent_s"])
    if task.budget.seconds() is None:
        # Another number of threads would add up in another order, and end in other bits.
        torch.set_num_threads(record["threads"])
    task.listener(Resumed(step=record["loop"]["now"]["steps"]))


FITTERS: dict[str, Fitter] = {
    "ngram": fit_by_counting,
    "rnn": fit_by_gradients,
    "gru": fit_by_gradients,
    "lstm": fit_by_gradients,
    "transformer": fit_by_gradients,
}


def fitter_for(family: str) -> Fitter:
    """Looked up before anything is read, so that a misspelled name costs nothing."""
    if family not in FITTERS:
        raise InvalidOption(f"--family is {family!r}; it must be one of {', '.join(FITTERS)}.")
    return FITTERS[family]


def _examiner(task: Task, model: LanguageModel) -> SliceExaminer:
    return SliceExaminer(
        model=model,
        data=task.data,
        seed=task.seed,
        save=lambda: task.save_early(model),
        clock=task.clock,
        budget=task.budget,
        save_s=task.save_s,
        crew=task.crew,
    )


def _planned(task: Task, model: LanguageModel, settings: dict[str, int | float]) -> Planned:
    config, data = model.config, task.data
    return Planned(
        family=task.family,
        num_parameters=model.num_parameters,
        vocabulary=data.vocabulary.kind,
        vocab_size=config.vocab_size,
        unit=data.unit,
        train_characters=data.train.num_characters,
        validation_characters=data.validation.num_characters,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        settings=settings,
    )
