"""The n-gram against a textbook Kneser-Ney, and against known figures on real text."""

from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families import ngram
from charlm_model.families.kneser_ney import fit
from charlm_model.families.ngram import NGram
from charlm_model.scoring import score, total_logprob
from charlm_model.text.vocabulary import CharVocabulary

SHAKESPEARE = Path(__file__).parents[4] / "shared" / "data" / "tinyshakespeare.txt"
V = 4


def make(ids: list[int], order: int, vocab_size: int = V) -> NGram:
    config = ModelConfig(family="ngram", vocab_size=vocab_size, context_length=order)
    return NGram(config, fit(np.array(ids), vocab_size, order))


def probabilities(model: NGram, context: list[int]) -> np.ndarray:
    logits_1TV, _ = model.advance(torch.tensor([context]), model.initial_state(1))
    return logits_1TV[0, -1].double().softmax(-1).numpy()


def textbook(ids: list[int], order: int, context: list[int]) -> list[float]:
    """Chen & Goodman's interpolated modified Kneser-Ney, with dictionaries.

    Contexts are padded with -1 before the text, as if it were one more token.
    """
    padded = [-1] * order + ids
    grams = [tuple(padded[i : i + order + 1]) for i in range(1, len(ids))]
    counts = {order: Counter(grams)}
    for k in range(order - 1, -1, -1):
        counts[k] = Counter(gram[1:] for gram in counts[k + 1])
    history = ([-1] * order + context)[-order:] if order else []

    def discount(k: int) -> dict[int, float]:
        n = Counter(min(c, 5) for c in counts[k].values())
        ratio = n[1] / max(n[1] + 2 * n[2], 1)
        raw = [1 - 2 * ratio * n[2] / max(n[1], 1), 2 - 3 * ratio * n[3] / max(n[2], 1)]
        raw.append(3 - 4 * ratio * n[4] / max(n[3], 1))
        return {i: min(max(d, 0.1), i - 0.1) for i, d in enumerate(raw, start=1)}

    p = [1 / V] * V
    for k in range(order + 1):
        suffix = tuple(history[order - k :])
        here = {v: counts[k][(*suffix, v)] for v in range(V) if counts[k][(*suffix, v)]}
        if not here:
            break
        total, d = sum(here.values()), discount(k)
        left = sum(d[min(c, 3)] for c in here.values()) / total
        shares = defaultdict(float, {v: (c - d[min(c, 3)]) / total for v, c in here.items()})
        p = [shares[v] + left * p[v] for v in range(V)]
    return p


@pytest.mark.parametrize("order", [1, 2, 3])
def test_probabilities_agree_with_textbook_kneser_ney(order: int) -> None:
    ids = [0, *np.random.default_rng(1).integers(1, V, 60).tolist()]
    model = make(ids, order)

    for context in ([0], [0, 1], [0, 3, 2, 1], [0, 1, 1, 1, 2, 2, 3]):
        expected = textbook(ids, order, context)
        np.testing.assert_allclose(probabilities(model, context), expected, rtol=1e-5)


def test_probabilities_sum_to_one_in_any_context() -> None:
    model = make([0, *np.random.default_rng(1).integers(0, V, 500).tolist()], 4)
    ids_BT = torch.from_numpy(np.random.default_rng(2).integers(0, V, (8, 40)))

    logits_BTV, _ = model.advance(ids_BT, model.initial_state(8))

    sums = logits_BTV.double().exp().sum(-1)
    torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-6, rtol=0)


def test_a_period_is_learned() -> None:
    model = make([0, *[1, 2, 3] * 200], 3)

    assert probabilities(model, [0, 1, 2, 3, 1, 2])[3] > 0.97


def test_an_end_of_text_cuts_the_context() -> None:
    """Tokens after it do not depend on tokens before it."""
    documents = [0, 1, 2, 0, 3, 2, 0, 1, 1, 0, 3, 3, 0]
    model = make(documents, 3)

    assert probabilities(model, [1, 2, 0]).tolist() == probabilities(model, [0]).tolist()
    assert probabilities(model, [3, 2, 0, 1]).tolist() == probabilities(model, [0, 1]).tolist()


def test_an_unfitted_model_is_uniform() -> None:
    model = NGram(ModelConfig(family="ngram", vocab_size=V, context_length=3))

    np.testing.assert_allclose(probabilities(model, [1, 2]), [1 / V] * V)


def test_large_vocabularies_and_orders_fit_in_64_bits() -> None:
    ids = np.random.default_rng(0).integers(0, 8192, 3000).tolist()

    model = make(ids, 8, vocab_size=8192)

    p = probabilities(model, ids[100:108])
    assert p.argmax() == ids[108]
    assert p.sum() == pytest.approx(1, abs=1e-6)


def test_chunks_change_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probabilities of a long text are computed in bounded chunks."""
    model = make([0, *np.random.default_rng(1).integers(0, V, 500).tolist()], 3)
    ids_BT = torch.from_numpy(np.random.default_rng(2).integers(0, V, (3, 25)))
    whole_BTV, _ = model.advance(ids_BT, model.initial_state(3))

    monkeypatch.setattr(ngram, "_MAX_PROBABILITIES", 7 * V)
    chunked_BTV, _ = model.advance(ids_BT, model.initial_state(3))

    assert torch.equal(chunked_BTV, whole_BTV)


@pytest.mark.slow
@pytest.mark.skipif(not SHAKESPEARE.exists(), reason="the benchmark text is not on this machine")
def test_the_known_figures_on_tiny_shakespeare() -> None:
    """Order 6 on tinyshakespeare: 1.5165 nats streamed, 1.5292 in cold blocks of 256."""
    text = SHAKESPEARE.read_text()
    train, validation = text[:1_003_854], text[1_003_854:]
    vocabulary = CharVocabulary.from_text(train)
    model = make([0, *vocabulary.encode(train)], 6, vocabulary.size)
    ids = vocabulary.encode_array(validation)

    streamed = -total_logprob(model, ids) / len(ids)
    blocks = [ids[start : start + 257].tolist() for start in range(0, len(ids) - 1, 256)]
    scores = [score(model, block[1:], model.initial_state(1), block[0])[0] for block in blocks]
    cold = -sum(float(each.logprobs.sum()) for each in scores) / (len(ids) - 1)

    assert streamed == pytest.approx(1.5165, abs=0.0005)
    assert cold == pytest.approx(1.5292, abs=0.0005)
