"""What a diagnosis works on: a text, and checkpoints or models trained for the purpose."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from charlm_model import checkpoint
from charlm_training.corpus.dataset import DataOptions, Encoder, split_corpus
from charlm_training.corpus.reader import Corpus, CorpusStats, open_corpus
from charlm_training.corpus.split import Split
from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.planning.options import TrainOptions
from charlm_training.run.run import Run
from charlm_training.run.workspace import Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosisInputs:
    """A text, a folder for temporary files, and settings of training."""

    corpus_name: str
    folder: Path
    budget: str
    seed: int
    is_interrupted: Callable[[], bool]
    announce: Callable[[str], None]
    corpus: Corpus = field(init=False)
    stats: CorpusStats = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "corpus", open_corpus(self.corpus_name))
        object.__setattr__(self, "stats", self.corpus.scan())

    def split(self, unit: str, fraction: float = DataOptions().validation_fraction) -> Split:
        return split_corpus(self.corpus, self.stats, unit, fraction)

    def subjects(
        self, checkpoints: Sequence[Path], families: Sequence[str]
    ) -> list[DiagnosedModel]:
        """The given checkpoints; without any, one model of each family, trained on the text."""
        if checkpoints:
            return [self.loaded(directory, str(directory)) for directory in checkpoints]
        return [self.trained(family) for family in families]

    def loaded(self, directory: Path, name: str) -> DiagnosedModel:
        loaded = checkpoint.load(directory)
        fraction = loaded.report["data"]["validation_fraction"]
        chunks = self.split(loaded.config.unit, fraction).validation(self.corpus.chunks())
        path = self.folder / f"{directory.name}.tokens"
        part = Encoder(loaded.vocabulary, loaded.config.unit).write(chunks, path)
        return DiagnosedModel(
            name=name, model=loaded.model, vocabulary=loaded.vocabulary, validation=part
        )

    def trained(self, family: str) -> DiagnosedModel:
        """Train a model for the budget, in the temporary folder."""
        self.announce(f"training {family} for {self.budget} ...")
        out = self.folder / family
        options = TrainOptions(
            corpus=self.corpus_name, out=out, family=family, budget=self.budget, seed=self.seed
        )
        Workspace(out).prepare(force=True)
        Run(options, lambda event: None, self.is_interrupted).train()
        return self.loaded(out, family)
