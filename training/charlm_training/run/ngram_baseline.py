"""The n-gram: a family of its own, and the baseline of every other family."""

from __future__ import annotations

from charlm_model.config import ModelConfig
from charlm_model.families import kneser_ney
from charlm_model.families.ngram import NGram
from charlm_training.budget import Budget
from charlm_training.corpus.dataset import Data
from charlm_training.errors import InvalidOption
from charlm_training.evaluation.batched import evaluate
from charlm_training.evaluation.samples_by_temperature import samples_by_temperature
from charlm_training.report.report import Report, evaluations_section

DEFAULT_ORDER, HIGHEST_ORDER = 6, 32
# Counting holds about 100 bytes for every token in memory.
MOST_TOKENS = 50_000_000
# The share of the wall-clock time for the baseline, at speeds that any machine reaches.
BUDGET_SHARE = 0.05
FITTED_PER_S, SCORED_PER_S = 800_000, 40_000
# Without a clock: enough for all of a small text.
UNTIMED_S = 60.0


def fit_ngram(data: Data, *, order: int = DEFAULT_ORDER, most_tokens: int = MOST_TOKENS) -> NGram:
    """Count the training part, or its last `most_tokens` tokens when it is longer than that."""
    if not 1 <= order <= HIGHEST_ORDER:
        raise InvalidOption(
            f"--context-length is {order}; the order of an n-gram is from 1 to {HIGHEST_ORDER}."
        )
    ids_N = data.train.ids_N[-most_tokens:].astype("int64")
    config = ModelConfig(
        family="ngram", vocab_size=data.vocabulary.size, unit=data.unit, context_length=order
    )
    return NGram(config, kneser_ney.fit(ids_N, config.vocab_size, order))


def baseline_section(data: Data, budget: Budget, seed: int) -> Report:
    """The figures of an n-gram of the usual order, on as much text as there is time for."""
    total_s = budget.seconds()
    seconds = UNTIMED_S if total_s is None else BUDGET_SHARE * total_s
    most_tokens = min(int(seconds / 3 * FITTED_PER_S), MOST_TOKENS)
    part = data.validation.first(int(seconds * 2 / 3 * SCORED_PER_S))
    model = fit_ngram(data, most_tokens=most_tokens)
    return {
        "order": DEFAULT_ORDER,
        "train_tokens": min(most_tokens, len(data.train.ids_N) - 1),
        "validation_characters": part.num_characters,
        "validation": evaluations_section(evaluate(model, part)),
        "samples": samples_by_temperature(model, data.vocabulary, seed),
    }
