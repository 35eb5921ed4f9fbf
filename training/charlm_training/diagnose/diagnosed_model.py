"""A model under diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.text.vocabulary import Vocabulary
from charlm_training.corpus.dataset import EncodedText


@dataclass(frozen=True, kw_only=True, slots=True)
class DiagnosedModel:
    """One model, and the validation text in its tokens."""

    name: str
    model: LanguageModel
    vocabulary: Vocabulary
    validation: EncodedText

    @property
    def token_name(self) -> str:
        return "characters" if self.vocabulary.kind == "char" else "tokens"

    def untrained(self) -> LanguageModel:
        """The same sizes before the first step."""
        torch.manual_seed(0)
        return build(self.model.config).eval()
