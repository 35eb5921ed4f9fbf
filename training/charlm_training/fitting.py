"""How each family is fitted: by gradients, or by counting. One literal table says which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from charlm_model.language_model import LanguageModel
from charlm_training.baseline import DEFAULT_ORDER, fit_ngram
from charlm_training.budget import Budget, Clock
from charlm_training.data import Data, Part
from charlm_training.errors import InvalidOption
from charlm_training.events import Listener, Noticed, Planned
from charlm_training.examiner import SliceExaminer, plan_final_evaluation
from charlm_training.learner import Learner, StepResult
from charlm_training.loop import Course, Loop
from charlm_training.plan import Plan, Planner, SizeOptions
from charlm_training.schedule import Schedule
from charlm_training.threads import ThreadGovernor


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """A model, how it came about, and the text it is to be evaluated on."""

    model: LanguageModel
    evaluated: Part
    stopped_by: str = "budget"
    steps: int = 0
    epochs: float = 1.0
    settings: dict[str, int | float]


Fitter = Callable[[Task], Fitted]


def fit_by_counting(task: Task) -> Fitted:
    """The n-gram: one pass and no gradient, whatever the budget."""
    order = task.size.context_length or DEFAULT_ORDER
    model = fit_ngram(task.data, order=order)
    settings: dict[str, int | float] = {"order": order}
    task.listener(_planned(task, model, settings))
    evaluation = plan_final_evaluation(
        model, task.data.validation, task.clock, task.budget.seconds()
    )
    return Fitted(model=model, evaluated=evaluation.part, settings=settings)


def fit_by_gradients(task: Task) -> Fitted:
    """Every other family: plan, train inside the budget, and come back with the best."""
    plan = Planner(task.family, task.data, task.budget, task.size, task.clock).plan(task.seed)
    for notice in plan.notices:
        task.listener(Noticed(text=notice))
    learner = plan.learner(task.data)
    task.listener(_planned(task, learner.model, plan.settings()))
    evaluation = plan_final_evaluation(
        learner.model, task.data.validation, task.clock, task.budget.seconds()
    )
    task.budget.begin_training(evaluation.seconds)
    stopped_by = _run_loop(task, plan, learner)
    return Fitted(
        model=learner.model,
        evaluated=evaluation.part,
        stopped_by=stopped_by,
        steps=learner.spent.steps,
        epochs=learner.spent.epochs,
        settings=plan.settings(),
    )


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


def _run_loop(task: Task, plan: Plan, learner: Learner) -> str:
    """Train to the end of the budget; the learner is left with the best weights."""
    examiner = SliceExaminer(
        learner.model, task.data, task.seed, lambda: task.save_early(learner.model), task.clock
    )
    with governed_threads(task) as after_step:
        course = Course(
            schedule=Schedule(peak=plan.learning_rate),
            budget=task.budget,
            clock=task.clock,
            is_interrupted=task.is_interrupted,
            after_step=after_step,
        )
        stopped_by = Loop(learner, course, examiner, task.listener).run()
    examiner.restore_best()
    return stopped_by


@contextmanager
def governed_threads(task: Task) -> Iterator[Callable[[StepResult], None]]:
    """The number of threads follows the machine's load, but only where a clock runs.

    It changes the last bits of sums, and a run of so many steps promises the same bits.
    """
    if task.budget.seconds() is None:
        yield lambda result: None
        return
    governor = ThreadGovernor(task.clock)
    try:
        yield lambda result: governor.count(result.num_targets)
    finally:
        governor.release()


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
