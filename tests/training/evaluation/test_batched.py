"""Every protocol scores each token once, under the context that it promises."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.scoring import score, total_logprob
from charlm_training.corpus.dataset import Data
from charlm_training.evaluation import batched
from charlm_training.evaluation.batched import cold_blocks, evaluate, lines, score_slice, streamed
from charlm_training.run.ngram_baseline import fit_ngram

Read = Callable[..., Data]


def tiny(family: str) -> LanguageModel:
    torch.manual_seed(0)
    config = ModelConfig(
        family=family, vocab_size=5, hidden_size=8, embedding_size=4, num_heads=2, context_length=8
    )
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model.eval()


def random_ids(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(1, 5, count)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "transformer", "ngram"])
@pytest.mark.parametrize("count", [2, 30, 33, 100])
def test_cold_blocks_agree_with_the_exact_path(family: str, count: int) -> None:
    model, ids = tiny(family), random_ids(count)

    measured = cold_blocks(model, np.concatenate([[0], ids]), 16)

    blocks = [ids[start : start + 17].tolist() for start in range(0, count - 1, 16)]
    scores = [score(model, block[1:], model.initial_state(1), block[0])[0] for block in blocks]
    exact = -sum(float(each.logprobs.sum()) for each in scores)
    assert (measured.protocol, measured.num_tokens) == ("cold blocks of 16", count - 1)
    assert measured.nats == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "transformer", "ngram"])
def test_streaming_agrees_with_the_exact_path(family: str) -> None:
    model, ids = tiny(family), random_ids(300)

    measured = streamed(model, np.concatenate([[0], ids]))

    assert (measured.protocol, measured.num_tokens) == ("streamed", 300)
    assert measured.nats == pytest.approx(-total_logprob(model, ids), rel=1e-5)


def test_lanes_score_every_token_once_and_warm(monkeypatch: pytest.MonkeyPatch, read: Read) -> None:
    """An n-gram forgets after its order, so for it warmed lanes are the one stream exactly."""
    data = read("the quick brown fox jumps over the lazy dog. " * 60)
    model, ids_N = fit_ngram(data, order=4), data.train.ids_N
    whole = streamed(model, ids_N)
    monkeypatch.setattr(batched, "TOKENS_PER_LANE", 300)
    monkeypatch.setattr(batched, "WARMUP_TOKENS", 256)

    measured = streamed(model, ids_N)

    assert measured.protocol == "streamed in 8 lanes after 256 tokens"
    assert measured.num_tokens == whole.num_tokens
    assert measured.nats == pytest.approx(whole.nats, rel=1e-6)


@pytest.mark.parametrize("family", ["gru", "lstm", "transformer", "ngram"])
def test_lines_agree_with_the_exact_path(family: str) -> None:
    model = tiny(family)
    texts = [np.append(random_ids(count), 0) for count in (3, 1, 17, 5, 3)]

    measured = lines(model, np.concatenate([[0], *texts]))

    assert measured.num_tokens == sum(map(len, texts))
    exact = -sum(total_logprob(model, text) for text in texts)
    assert measured.nats == pytest.approx(exact, rel=1e-5)


def test_a_line_longer_than_a_window_is_scored_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model, ids_N = tiny("lstm"), np.concatenate([[0], random_ids(50), [0], random_ids(9), [0]])
    whole = lines(model, ids_N)
    monkeypatch.setattr(batched, "MAX_WINDOW", 7)

    assert lines(model, ids_N).nats == pytest.approx(whole.nats, rel=1e-6)


def test_the_same_model_and_text_give_the_same_number(read: Read) -> None:
    data, model = read("abcd" * 200), tiny("lstm")

    first, second = evaluate(model, data.validation), evaluate(model, data.validation)

    assert first == second


def test_bits_count_characters_and_bytes_not_tokens(read: Read) -> None:
    data = read("말a" * 200, vocabulary="byte")

    streamed_figures = evaluate(fit_ngram(data, order=2), data.validation)[1]

    assert (streamed_figures.num_characters, streamed_figures.num_bytes) == (40, 80)
    assert streamed_figures.num_tokens == 80
    assert streamed_figures.bits_per_character == pytest.approx(2 * streamed_figures.bits_per_byte)


def test_a_slice_is_scored_by_the_cold_protocol(read: Read) -> None:
    part = read("abcd" * 200).validation

    measured = score_slice(tiny("lstm"), part, 20)

    assert (measured.protocol, measured.num_tokens) == ("cold blocks of 256", 19)
