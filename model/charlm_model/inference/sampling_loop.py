"""The plain sampling loop: prints samples in training, and is the oracle of the engine."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from charlm_model.language_model import LanguageModel
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.philox import uniforms
from charlm_model.sampling.sampler import sample_rows
from charlm_model.text.vocabulary import END_OF_TEXT_ID


@dataclass(frozen=True, slots=True)
class Generated:
    """Sampled ids, and their log-probs (nats) under the model itself."""

    ids: list[int]
    logprobs: list[float]


def generate(
    model: LanguageModel,
    prompt_ids: Sequence[int],
    *,
    max_new_tokens: int,
    params: SamplingParams | None = None,
    seed: int = 0,
    stop_at_end_of_text: bool = True,
) -> Generated:
    """Continue a prompt (empty: the start of a text). A sampled end of text is not returned."""
    params = params or SamplingParams()
    recent = array("q", prompt_ids)
    inputs_1T = torch.tensor([[END_OF_TEXT_ID, *prompt_ids]])
    logits_1TV, state = model.advance(inputs_1T, model.initial_state(1))
    logits_1V = logits_1TV[:, -1]
    generated = Generated([], [])
    for position in range(max_new_tokens):
        logprobs_1V = logprobs_from(logits_1V.numpy())
        words = (np.array([word], np.uint64) for word in (seed, 0, position))
        ids_1, _ = sample_rows(logprobs_1V, [params], [recent], uniforms(*words))
        token_id = int(ids_1[0])
        if token_id == END_OF_TEXT_ID and stop_at_end_of_text:
            break
        recent.append(token_id)
        generated.ids.append(token_id)
        generated.logprobs.append(float(logprobs_1V[0, token_id].astype(np.float32)))
        logits_1V, state = model.step(torch.from_numpy(ids_1), state)
    return generated
