"""Evaluates a model on a text with the exact arithmetic: the same bits as a server.

Legend: N tokens.
"""

from __future__ import annotations

from itertools import pairwise

from charlm_model.language_model import LanguageModel
from charlm_model.scoring import Evaluation, total_logprob
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_training.corpus.dataset import EncodedText
from charlm_training.corpus.token_file import Ids, positions_of


def evaluate_exactly(model: LanguageModel, part: EncodedText) -> list[Evaluation]:
    """Every document from its start to its end: the whole text, or each line of it."""
    total = _lines if part.is_lines else _whole
    return [
        Evaluation(
            protocol="exact, every line from its start" if part.is_lines else "exact, in one pass",
            num_tokens=len(part.ids_N) - 1,
            num_characters=part.num_characters,
            num_bytes=part.num_bytes,
            nats=-total(model.eval(), part.ids_N),
        )
    ]


def _whole(model: LanguageModel, ids_N: Ids) -> float:
    return total_logprob(model, ids_N[1:])


def _lines(model: LanguageModel, ids_N: Ids) -> float:
    edges = positions_of(ids_N, END_OF_TEXT_ID).tolist()
    lines = (ids_N[start + 1 : end + 1] for start, end in pairwise(edges))
    return sum((total_logprob(model, line_N) for line_N in lines), start=0.0)
