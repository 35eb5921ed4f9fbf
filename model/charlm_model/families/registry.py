"""Model families by name."""

from collections.abc import Mapping

from torch import Tensor

from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.families.ngram import NGram
from charlm_model.families.recurrent import RecurrentModel
from charlm_model.families.transformer import Transformer
from charlm_model.language_model import LanguageModel

FAMILIES: dict[str, type[LanguageModel]] = {
    "ngram": NGram,
    "rnn": RecurrentModel,
    "gru": RecurrentModel,
    "lstm": RecurrentModel,
    "transformer": Transformer,
}


def build(config: ModelConfig) -> LanguageModel:
    """A model with random weights from torch's global generator."""
    return _class_of(config)(config)


def restore(config: ModelConfig, tensors: Mapping[str, Tensor]) -> LanguageModel:
    """A model with these weights."""
    return _class_of(config).from_tensors(config, tensors)


def _class_of(config: ModelConfig) -> type[LanguageModel]:
    if config.family not in FAMILIES:
        names = ", ".join(FAMILIES)
        raise InvalidConfig(f"family is {config.family!r}; it must be one of {names}.")
    return FAMILIES[config.family]
