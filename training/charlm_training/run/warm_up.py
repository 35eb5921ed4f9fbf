"""Warm-up: the first and slow use of everything a run needs, before its clock starts.

The first use of an exact path compiles its kernels, once on a machine, for up to a minute, and
loads them, once in a process; torch's first optimizer imports a compiler for seconds; matplotlib's
first plot on a machine makes a list of fonts. That is start-up, like the imports, and no part of a
budget. Warm-up also measures how long saving takes, so that a budget can be kept.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from charlm_model import checkpoint
from charlm_model.config import ModelConfig
from charlm_model.devices import CPU
from charlm_model.families import kneser_ney
from charlm_model.families.ngram import NGram
from charlm_model.families.registry import build
from charlm_model.kernels.cpu_training.bfloat16 import PANEL_WIDTH
from charlm_model.language_model import LanguageModel
from charlm_model.text.vocabulary import CharVocabulary
from charlm_training.budget import Clock
from charlm_training.corpus.windows import BatchShape, StreamWindows
from charlm_training.evaluation.samples_by_temperature import samples_by_temperature
from charlm_training.report.drawing import svg
from charlm_training.report.plot import Curve, Plot
from charlm_training.step.learner import Learner

VOCABULARY = CharVocabulary("\nab")
# Widths are the least that the kernels for training take.
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY.size, "embedding_size": PANEL_WIDTH, "hidden_size": PANEL_WIDTH,
    "num_heads": 1, "context_length": 2, "kernel_size": 2, "pair_rows": 4,
}  # fmt: skip


def warm_up(family: str, folder: Path, clock: Clock, device: torch.device = CPU) -> float:
    """Returns the seconds that saving a small model in the folder takes.

    Raises OSError when the disk would not take it.
    """
    models = [_ngram()] if family == "ngram" else [_ngram(), _fresh(family)]
    if family != "ngram":
        _steps(family, device)
    svg(Plot(title="", x_label="", y_label="", curves=[Curve(name="", x=[0, 1], y=[0, 1])]))
    for model in models:
        samples_by_temperature(model, VOCABULARY, seed=0, num_tokens=1)
    with TemporaryDirectory(dir=folder, prefix=".warm-up-") as scratch:
        checkpoint.save(Path(scratch) / "model", models[-1], VOCABULARY, {})  # loads its kernels
        began = clock()
        checkpoint.save(Path(scratch) / "model", models[-1], VOCABULARY, {})
        return clock() - began


def config_of(family: str) -> ModelConfig:
    """As small as can be, and large enough for every kernel that a run may use."""
    return ModelConfig(family=family, **SIZES)


def _fresh(family: str) -> LanguageModel:
    with torch.random.fork_rng():  # the run's own draws come after
        return build(config_of(family))


def _steps(family: str, device: torch.device) -> None:
    """Two, because a GPU records the first and repeats it in the second."""
    ids_N = np.ones(8, dtype=np.uint16)
    windows = StreamWindows(ids_N, BatchShape(batch_size=1, length=2))
    with torch.random.fork_rng():
        model = _fresh(family).to(device)
        learner = Learner(model, windows, clip_norm=1.0, weight_decay=0.0, muon_rate=1.0)
        learner.step(1e-3)
        learner.step(1e-3)


def _ngram() -> NGram:
    ids_N = np.array([0, 2, 3, 1, 2, 3, 1, 0], dtype=np.int64)
    config = ModelConfig(family="ngram", vocab_size=VOCABULARY.size, context_length=2)
    return NGram(config, kneser_ney.fit(ids_N, config.vocab_size, config.context_length))
