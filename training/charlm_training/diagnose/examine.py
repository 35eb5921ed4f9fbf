"""The diagnoses by name, each with the text and the models that it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from charlm_training.budget import parse_duration
from charlm_training.corpus.dataset import DataOptions, read_data
from charlm_training.diagnose import context, gradient_flow, memorization, order, truncation
from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.diagnose.diagnosis import Diagnosis
from charlm_training.diagnose.inputs import DiagnosisInputs
from charlm_training.errors import InvalidOption, NotPossible
from charlm_training.planning.options import check_family, check_seed

GRADIENT_FAMILIES = ("rnn", "gru", "lstm", "transformer")
DEFAULT_FAMILIES = {
    "gradient-flow": GRADIENT_FAMILIES,
    "truncation": ("lstm",),
    "context": ("ngram", "lstm"),
    "memorization": ("ngram", "lstm"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnoseOptions:
    """The options of `charlm diagnose`."""

    what: str
    corpus: str
    checkpoints: tuple[Path, ...] = ()
    families: tuple[str, ...] | None = None
    budget: str = "20s"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.what not in DIAGNOSES:
            raise InvalidOption(f"WHAT is {self.what!r}; it must be one of {', '.join(DIAGNOSES)}.")
        for family in self.families or ():
            check_family(family, "--families")
        if self.families is not None and self.checkpoints:
            raise InvalidOption("--checkpoint and --families exclude each other; give one.")
        if self.checkpoints and self.what not in TAKES_CHECKPOINTS:
            paths = ", ".join(map(str, self.checkpoints))
            raise InvalidOption(
                f"--checkpoint is {paths}, but {self.what} trains its own models; leave "
                "--checkpoint out."
            )
        if self.what in ("gradient-flow", "truncation") and "ngram" in (self.families or ()):
            raise InvalidOption(
                f"--families is {','.join(self.families or ())!r}, but an n-gram has no gradients; "
                f"leave ngram out, or choose another diagnosis than {self.what}."
            )
        check_seed(self.seed)
        parse_duration(self.budget)

    def chosen_families(self) -> tuple[str, ...]:
        return self.families or DEFAULT_FAMILIES[self.what]


def examine(
    options: DiagnoseOptions,
    folder: Path,
    is_interrupted: Callable[[], bool],
    announce: Callable[[str], None],
) -> Diagnosis:
    """Read the text, load or train the models, measure. `folder` is for temporary files."""
    inputs = DiagnosisInputs(
        corpus_name=options.corpus,
        folder=folder,
        budget=options.budget,
        seed=options.seed,
        is_interrupted=is_interrupted,
        announce=announce,
    )
    return DIAGNOSES[options.what](options, inputs)


def _gradient_flow(options: DiagnoseOptions, inputs: DiagnosisInputs) -> Diagnosis:
    subjects = _of_streams(options, inputs)
    for subject in subjects:
        if subject.model.config.family == "ngram":
            raise NotPossible(
                f"--checkpoint {subject.name} is an n-gram, which has no gradients; give another."
            )
    return gradient_flow.diagnose(subjects)


def _context(options: DiagnoseOptions, inputs: DiagnosisInputs) -> Diagnosis:
    return context.diagnose(_of_streams(options, inputs))


def _of_streams(options: DiagnoseOptions, inputs: DiagnosisInputs) -> list[DiagnosedModel]:
    """Refuses models of lines: they forget at every line end, so they have no far context."""
    subjects = inputs.subjects(options.checkpoints, options.chosen_families())
    for subject in subjects:
        if subject.model.config.unit == "line":
            raise NotPossible(
                f"{subject.name} was trained with --unit line, where each line is a text of its "
                f"own; {options.what} needs a model of one long text."
            )
    return subjects


def _memorization(options: DiagnoseOptions, inputs: DiagnosisInputs) -> Diagnosis:
    subjects = inputs.subjects(options.checkpoints, options.chosen_families())
    split = inputs.split(subjects[0].model.config.unit)
    return memorization.diagnose(
        subjects,
        training=split.train(inputs.corpus.chunks()),
        validation=split.validation(inputs.corpus.chunks()),
        seed=inputs.seed,
    )


def _order(options: DiagnoseOptions, inputs: DiagnosisInputs) -> Diagnosis:
    return order.diagnose(read_data(inputs.corpus, inputs.stats, DataOptions(), inputs.folder))


def _truncation(options: DiagnoseOptions, inputs: DiagnosisInputs) -> Diagnosis:
    data = read_data(inputs.corpus, inputs.stats, DataOptions(), inputs.folder)
    (family,) = options.chosen_families()[:1]
    return truncation.diagnose(
        truncation.Trial(
            family=family,
            data=data,
            seconds=parse_duration(options.budget),
            seed=options.seed,
            announce=inputs.announce,
        )
    )


TAKES_CHECKPOINTS = ("gradient-flow", "context", "memorization")
DIAGNOSES: dict[str, Callable[[DiagnoseOptions, DiagnosisInputs], Diagnosis]] = {
    "gradient-flow": _gradient_flow,
    "truncation": _truncation,
    "context": _context,
    "order": _order,
    "memorization": _memorization,
}
