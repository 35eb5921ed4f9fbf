"""Samples of a model at three temperatures, as the rows of one batch."""

from __future__ import annotations

from array import array

import numpy as np
import torch

from charlm_model.language_model import LanguageModel
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.philox import uniforms
from charlm_model.sampling.sampler import sample_rows
from charlm_model.text.vocabulary import END_OF_TEXT_ID, Vocabulary

TEMPERATURES = (0.5, 0.8, 1.0)
NUM_TOKENS = 240


def samples_by_temperature(
    model: LanguageModel, vocabulary: Vocabulary, seed: int, num_tokens: int = NUM_TOKENS
) -> dict[str, str]:
    """A text for every temperature, by its name. An end of text is written as a line end."""
    params = [SamplingParams(temperature=temperature) for temperature in TEMPERATURES]
    recent = [array("q") for _ in params]
    model.eval()
    ids_B = torch.full((len(params),), END_OF_TEXT_ID)
    state = model.initial_state(len(params))
    for position in range(num_tokens):
        logits_BV, state = model.step(ids_B, state)
        words = (np.full(len(params), word, np.uint64) for word in (seed, 0, position))
        chosen_B, _ = sample_rows(
            logprobs_from(logits_BV.numpy()), params, recent, uniforms(*words)
        )
        for row, token_id in enumerate(chosen_B.tolist()):
            recent[row].append(token_id)
        ids_B = torch.from_numpy(chosen_B)
    return {
        f"{temperature:g}": _text(vocabulary, list(ids))
        for temperature, ids in zip(TEMPERATURES, recent, strict=True)
    }


def _text(vocabulary: Vocabulary, ids: list[int]) -> str:
    texts: list[list[int]] = [[]]
    for token_id in ids:
        if token_id == END_OF_TEXT_ID:
            texts.append([])
        else:
            texts[-1].append(token_id)
    return "\n".join(vocabulary.decode(each) for each in texts)
