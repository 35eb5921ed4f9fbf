"""Digests of the results of models with fixed weights, for every kind of computation.

python -m tests.model.known_bits [THREADS]     # prints them as JSON
"""

import hashlib
import json
import sys
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from charlm_model.compression.byte_escape import EscapedTokens
from charlm_model.compression.range_coding import EncodingRow, encode_rows
from charlm_model.config import ModelConfig
from charlm_model.families.kneser_ney import fit
from charlm_model.families.ngram import NGram
from charlm_model.families.registry import build
from charlm_model.inference.batched_steps import Stepper
from charlm_model.inference.gap_filling import Gap, fill
from charlm_model.language_model import LanguageModel
from charlm_model.mixture import Mixing, MixtureKind, MixtureModel
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.philox import Counters
from charlm_model.sampling.sampler import sample_rows
from charlm_model.scoring import score_tokens
from tests.fakes.tiny_model import finished

VOCAB_SIZE = 21
SIZES = {"embedding_size": 12, "hidden_size": 64, "num_layers": 2, "num_heads": 2}
PARAMS = [
    SamplingParams(temperature=0.7, top_k=9),
    SamplingParams(temperature=1.3, top_p=0.8, repetition_penalty=1.2),
    SamplingParams(typical_p=0.7, presence_penalty=0.5),
    SamplingParams(min_p=0.05, frequency_penalty=0.1, logit_bias={3: 1.5}),
]


def models() -> Iterator[tuple[str, LanguageModel]]:
    made = {family: made_of(family) for family in ("ngram", "rnn", "gru", "lstm", "transformer")}
    yield from made.items()
    for kind in MixtureKind:
        members = [made["ngram"], made["gru"]]
        yield kind.value, MixtureModel(members, Mixing(kind, (0.7, 0.3))).eval()


def made_of(family: str) -> LanguageModel:
    """A model whose weights are a function of their index, equal in all versions of torch."""
    config = ModelConfig(
        family=family, vocab_size=VOCAB_SIZE, context_length=70, kernel_size=3, pair_rows=7, **SIZES
    )
    if family == "ngram":
        order = ModelConfig(family=family, vocab_size=VOCAB_SIZE, context_length=3)
        return NGram(order, fit(spread(2000).astype(np.int64) % VOCAB_SIZE, VOCAB_SIZE, 3)).eval()
    model = build(config)
    for number, parameter in enumerate(model.parameters()):
        values = spread(parameter.numel(), number).astype(np.float32) * np.float32(0.6 / 2**24)
        parameter.data = torch.from_numpy(values - np.float32(0.3)).view_as(parameter)
    return model.eval()


def spread(num: int, start: int = 0) -> NDArray[np.uint64]:
    """Numbers spread evenly over 24 bits."""
    steps = np.arange(num, dtype=np.uint64) + np.uint64(start)
    return (steps * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(40)


@torch.inference_mode()
def results(model: LanguageModel) -> Iterator[NDArray[np.generic]]:
    """Logits, a burst, scores, draws by every filter, a gap's posterior, compressed bits."""
    ids_BT = torch.arange(3 * 90).view(3, 90) % VOCAB_SIZE
    logits_BTV, state = model.advance(ids_BT, model.initial_state(3))
    yield logits_BTV.numpy()
    logprobs_BV = logprobs_from(logits_BTV[:, -1].numpy())
    yield logprobs_BV
    scores = score_tokens(logits_BTV[0], ids_BT[0].numpy())
    yield from (scores.logprobs, scores.ranks, scores.entropies)
    counters = Counters(*np.arange(9, dtype=np.uint64).reshape(3, 3))
    for params in PARAMS:
        recent = ids_BT.tolist()
        yield from sample_rows(logprobs_BV, [params] * 3, recent, counters.uniforms(0))
    burst, after_BV, _ = model.sample(logits_BTV[:, -1], state, counters, num_steps=20)
    yield from (burst.ids_BK, burst.logprobs_BK, after_BV.numpy())
    stepper = Stepper(model, (1, 2, 4, 8, 32))
    logits_11V, state_1 = model.advance(torch.tensor([[0]]), model.initial_state(1))
    for length in (1, 3):
        gap = Gap(
            stepper=stepper,
            state=state_1.clone(),
            logits_1V=logits_11V[0],
            right=[4, 5],
            length=length,
        )
        filled = finished(fill(gap, num_fillings=8, num_particles=16, seed=3))
        yield np.array([[each.posterior, each.total_logprob] for each in filled.fillings])
        yield np.array([filled.log_evidence])
    row = EncodingRow(EscapedTokens([1 + i * i % (VOCAB_SIZE - 1) for i in range(200)], []))
    for _ in encode_rows(stepper, state_1, logits_11V[0], [row]):
        pass
    yield np.frombuffer(row.payload(), np.uint8)


def digests() -> dict[str, str]:
    found = {}
    for name, model in models():
        digest = hashlib.sha256()
        for array in results(model):
            digest.update(np.ascontiguousarray(array).tobytes())
        found[name] = digest.hexdigest()[:16]
    return found


if __name__ == "__main__":
    if sys.argv[1:]:
        torch.set_num_threads(int(sys.argv[1]))
    print(json.dumps(digests(), indent=1))
