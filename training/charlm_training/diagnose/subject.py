"""The models under examination: checkpoints, or models trained for the occasion."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from charlm_model import checkpoint
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.text.vocabulary import Vocabulary
from charlm_training.corpus.dataset import DataOptions, Encoder, Part, split_corpus
from charlm_training.corpus.reader import Corpus, Findings, open_corpus
from charlm_training.corpus.split import Split
from charlm_training.planning.options import TrainOptions
from charlm_training.run.run import Run
from charlm_training.run.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """One model, and the validation text in its tokens."""

    name: str
    model: LanguageModel
    vocabulary: Vocabulary
    validation: Part

    @property
    def token_name(self) -> str:
        return "characters" if self.vocabulary.kind == "char" else "tokens"

    def untrained(self) -> LanguageModel:
        """The same sizes before the first step."""
        torch.manual_seed(0)
        return build(self.model.config).eval()


@dataclass(frozen=True, kw_only=True, slots=True)
class Laboratory:
    """A text, a folder for files in passing, and a way to train."""

    corpus_name: str
    folder: Path
    budget: str
    seed: int
    is_interrupted: Callable[[], bool]
    announce: Callable[[str], None]
    corpus: Corpus = field(init=False)
    findings: Findings = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpus", open_corpus(self.corpus_name))
        object.__setattr__(self, "findings", self.corpus.scan())

    def split(self, unit: str, fraction: float = DataOptions().validation_fraction) -> Split:
        return split_corpus(self.corpus, self.findings, unit, fraction)

    def subjects(self, checkpoints: Sequence[Path], families: Sequence[str]) -> list[Subject]:
        """The given checkpoints; without any, one model of each family, trained on the text."""
        if checkpoints:
            return [self.loaded(directory, str(directory)) for directory in checkpoints]
        return [self.trained(family) for family in families]

    def loaded(self, directory: Path, name: str) -> Subject:
        loaded = checkpoint.load(directory)
        fraction = loaded.report["data"]["validation_fraction"]
        chunks = self.split(loaded.config.unit, fraction).validation(self.corpus.chunks())
        path = self.folder / f"{directory.name}.tokens"
        part = Encoder(loaded.vocabulary, loaded.config.unit).write(chunks, path)
        return Subject(name=name, model=loaded.model, vocabulary=loaded.vocabulary, validation=part)

    def trained(self, family: str) -> Subject:
        """Trains for the budget, in a folder that does not last."""
        self.announce(f"training {family} for {self.budget} ...")
        out = self.folder / family
        options = TrainOptions(
            corpus=self.corpus_name, out=out, family=family, budget=self.budget, seed=self.seed
        )
        Workspace(out).prepare(force=True)
        Run(options, lambda event: None, self.is_interrupted).train()
        return self.loaded(out, family)
