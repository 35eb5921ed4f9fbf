"""Exact figures are of every document from its start, whole, and have no lanes or blocks."""

from collections.abc import Callable

import numpy as np
import pytest

from charlm_model.scoring import total_logprob
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_training.corpus.dataset import Data
from charlm_training.evaluation.exact import evaluate_exactly
from charlm_training.run.ngram_baseline import fit_ngram

Read = Callable[..., Data]


def test_a_stream_is_one_pass_from_its_start(read: Read) -> None:
    data = read("the quick brown fox. " * 60)
    model, part = fit_ngram(data, order=4), data.validation

    (evaluation,) = evaluate_exactly(model, part)

    assert evaluation.protocol == "exact, in one pass"
    assert evaluation.nats == -total_logprob(model, part.ids_N[1:])
    assert evaluation.num_tokens == evaluation.num_bytes == part.num_characters


def test_every_line_starts_fresh_and_its_end_counts_as_a_character(read: Read) -> None:
    lines = ["ab", "abc", "b"]
    data = read("ab\nabc\n\nb\n" * 40, unit="line", validation_fraction=0.1)
    model = fit_ngram(data, order=3)

    (evaluation,) = evaluate_exactly(model, data.validation)

    encoded = [np.append(data.vocabulary.encode_array(line), END_OF_TEXT_ID) for line in lines]
    once = sum(total_logprob(model, ids) for ids in encoded)
    assert evaluation.protocol == "exact, every line from its start"
    assert evaluation.num_tokens == evaluation.num_characters == 4 * len("ab.abc.b.")
    assert evaluation.nats == pytest.approx(-4 * once, rel=1e-12)
