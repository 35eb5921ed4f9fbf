"""Models mixed: a neural one with an n-gram, fitted on a slice of the text, or two neural ones.

B lanes, N tokens.
"""

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from charlm_model import checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families import kneser_ney
from charlm_model.families.ngram import NGram
from charlm_model.language_model import LanguageModel
from charlm_model.mixture import Mixing, MixtureKind, MixtureModel
from charlm_model.text.vocabulary import END_OF_TEXT_ID, Vocabulary
from charlm_training.corpus.token_file import Ids
from charlm_training.evaluation.batched import cold_blocks, streamed

ORDERS = (5, 6, 7)
WEIGHTS = np.arange(0.5, 0.96, 0.01)
LANES, WARMUP = 24, 256
RESERVED_S = 9.0
"""What counting, fitting and the last evaluation may take of a budget."""


def fitted(out: Path, train_text: str, held_text: str, slice_share: float) -> dict[str, float]:
    """Figures of the mixture on text that nothing was fitted on, and the seconds of it all."""
    began = time.perf_counter()
    loaded = checkpoint.load(out)
    neural, vocabulary = loaded.model.eval(), loaded.vocabulary
    train_N, held_N = ids_of(train_text, vocabulary), ids_of(held_text, vocabulary)
    cut = len(train_N) - round(len(train_text) * slice_share)
    neural_N = target_probabilities(neural, train_N[cut - WARMUP :])
    order, weight, slice_nats = min(
        (fit(neural_N, train_N, cut, order) for order in ORDERS), key=lambda found: found[2]
    )
    mixture = MixtureModel(
        [neural, ngram(train_N, vocabulary.size, order)],
        Mixing(MixtureKind.LINEAR, (weight, 1 - weight)),
    )
    found = {
        "order": order,
        "neural_weight": weight,
        "slice_nats": slice_nats,
        "cold": cold_blocks(mixture, held_N).nats_per_token,
        "streamed": streamed(mixture, held_N).nats_per_token,
    }
    spent = time.perf_counter() - began
    return {**found, "seconds": loaded.report["training"]["elapsed_s"] + spent}


def averaged(outs: list[Path], held_text: str) -> dict[str, float]:
    """Figures of models of the same text with equal weights, and the seconds of it all."""
    began = time.perf_counter()
    loaded = [checkpoint.load(out) for out in outs]
    held_N = ids_of(held_text, loaded[0].vocabulary)
    share = 1 / len(loaded)
    mixture = MixtureModel(
        [each.model.eval() for each in loaded], Mixing(MixtureKind.LINEAR, (share,) * len(loaded))
    )
    found = {
        "cold": cold_blocks(mixture, held_N).nats_per_token,
        "streamed": streamed(mixture, held_N).nats_per_token,
    }
    trained = sum(each.report["training"]["elapsed_s"] for each in loaded)
    return {**found, "seconds": trained + time.perf_counter() - began}


def ids_of(text: str, vocabulary: Vocabulary) -> Ids:
    return np.array([END_OF_TEXT_ID, *vocabulary.encode(text)], dtype=np.int64)


def ngram(train_N: Ids, vocab_size: int, order: int) -> LanguageModel:
    config = ModelConfig(family="ngram", vocab_size=vocab_size, context_length=order)
    return NGram(config, kneser_ney.fit(train_N, vocab_size, order)).eval()


def fit(
    neural_N: npt.NDArray[np.float64], train_N: Ids, cut: int, order: int
) -> tuple[int, float, float]:
    """The best weight of the neural model with an n-gram that has not seen the slice either."""
    counted = ngram(train_N[:cut], int(train_N.max()) + 1, order)
    counted_N = target_probabilities(counted, train_N[cut - WARMUP :])
    nats = [
        float(-np.log(weight * neural_N + (1 - weight) * counted_N).mean()) for weight in WEIGHTS
    ]
    best = int(np.argmin(nats))
    return order, float(WEIGHTS[best]), nats[best]


@torch.inference_mode()
def target_probabilities(model: LanguageModel, ids_N: Ids) -> npt.NDArray[np.float64]:
    """Of every token after the first WARMUP ones, in lanes that first read as many before them."""
    length = (len(ids_N) - WARMUP) // LANES
    starts_B1 = np.arange(LANES)[:, None] * length
    window_BT = torch.from_numpy(ids_N[starts_B1 + np.arange(WARMUP + length)])
    logits_BTV, _ = model(window_BT[:, :-1], model.initial_state(LANES))
    logprobs_BTV = logits_BTV.double().log_softmax(-1)
    target_BT1 = window_BT[:, 1:, None]
    probabilities: npt.NDArray[np.float64] = (
        logprobs_BTV.gather(2, target_BT1)[:, WARMUP - 1 :, 0].exp().numpy()
    )
    return probabilities.ravel()
