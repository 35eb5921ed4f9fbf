"""Small models of every family, with weights that are far from zero."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families.kneser_ney import fit
from charlm_model.families.ngram import NGram
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel

torch.set_num_threads(1)

VOCAB_SIZE = 11
MakeModel = Callable[..., LanguageModel]


@pytest.fixture
def make_model() -> MakeModel:
    """A model in eval mode; takes sizes as keyword arguments."""

    def make(family: str, **sizes: int) -> LanguageModel:
        defaults = {"vocab_size": VOCAB_SIZE, "embedding_size": 6, "hidden_size": 8}
        defaults |= {"num_layers": 2, "num_heads": 2, "context_length": 5}
        defaults |= {"kernel_size": 3, "pair_rows": 7}
        config = ModelConfig(family=family, **{**defaults, **sizes})
        if family == "ngram":
            ids = np.random.default_rng(3).integers(0, config.vocab_size, 500)
            return NGram(config, fit(ids, config.vocab_size, config.context_length)).eval()
        torch.manual_seed(1)
        model = build(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * 0.2)
        return model.eval()

    return make
