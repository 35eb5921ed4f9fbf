"""Scores texts: log-prob, rank and entropy of every token, and figures for whole texts.

Legend: B batch, T time, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, log

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from charlm_model import exact_math
from charlm_model.exact_sum import ExactSum
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.processors import Floats
from charlm_model.state import State
from charlm_model.text.vocabulary import END_OF_TEXT_ID, Ids

NATS_PER_BIT = log(2)
# Logits that are computed at a time.
_MAX_LOGITS = 4_000_000
# Tokens that are read at a time.
_CHUNK = 1024


@dataclass(frozen=True, slots=True)
class TokenScores:
    """One entry per token: log-prob (nats), rank (1 = most probable), entropy before it (nats)."""

    logprobs: NDArray[np.float32]
    ranks: NDArray[np.int32]
    entropies: NDArray[np.float32]


def chosen(logprobs_TV: NDArray[np.float64], ids_T: Ids) -> NDArray[np.float32]:
    """Log-probs of the ids in float32: rounded only here, so that all callers get the same bits."""
    return logprobs_TV[np.arange(len(ids_T)), ids_T].astype(np.float32)


def entropies(logprobs_TV: Floats) -> Floats:
    """The entropy of each distribution, in nats (T, 1)."""
    return -exact_math.row_sums(exact_math.exp(logprobs_TV) * logprobs_TV)


def score_tokens(logits_TV: Tensor, ids_T: Ids) -> TokenScores:
    """Scores of each id under the distribution in its row. The bits do not depend on T."""
    logprobs_TV = logprobs_from(logits_TV.numpy())
    chosen_T1 = logprobs_TV[np.arange(len(ids_T)), ids_T][:, None]
    above_T = (logprobs_TV > chosen_T1).sum(axis=-1)
    is_lower_id = np.arange(logprobs_TV.shape[1]) < ids_T[:, None]
    ties_T = ((logprobs_TV == chosen_T1) & is_lower_id).sum(axis=-1)
    return TokenScores(
        chosen_T1[:, 0].astype(np.float32),
        (above_T + ties_T + 1).astype(np.int32),
        entropies(logprobs_TV)[:, 0].astype(np.float32),
    )


def score(
    model: LanguageModel, ids: Sequence[int], state: State, first_id: int
) -> tuple[TokenScores, State]:
    """Score ids after a state whose next input is `first_id`, on the exact path.

    Returns the scores and the state that has read `first_id` and all ids but the last.
    """
    inputs = [first_id, *ids[:-1]]
    chunk = max(1, _MAX_LOGITS // model.config.vocab_size)
    parts = []
    for start in range(0, len(ids), chunk):
        ids_1T = torch.tensor([inputs[start : start + chunk]])
        logits_1TV, state = model.advance(ids_1T, state)
        parts.append(score_tokens(logits_1TV[0], np.array(ids[start : start + chunk])))
    fields = ("logprobs", "ranks", "entropies")
    return TokenScores(
        *(np.concatenate([getattr(part, f) for part in parts]) for f in fields)
    ), state


def total_logprob(model: LanguageModel, ids: NDArray[np.integer]) -> float:
    """Log-prob of a text from its start, in nats, on the exact path and rounded once.

    It has the bits of the total that a server returns for the same text, sent in any pieces.
    """
    state, last_id, total = model.initial_state(1), END_OF_TEXT_ID, ExactSum()
    for start in range(0, len(ids), _CHUNK):
        ids_T = ids[start : start + _CHUNK].astype(np.int64)
        inputs_1T = torch.from_numpy(np.concatenate([[last_id], ids_T[:-1]]))[None]
        logits_1TV, state = model.advance(inputs_1T, state)
        total.add(chosen(logprobs_from(logits_1TV[0].numpy()), ids_T))
        last_id = int(ids_T[-1])
    return total.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """A model's figures over a text, and the protocol of their measurement."""

    protocol: str
    num_tokens: int
    num_characters: int
    num_bytes: int
    nats: float

    @property
    def nats_per_token(self) -> float:
        return self.nats / self.num_tokens

    @property
    def nats_per_character(self) -> float:
        return self.nats / self.num_characters

    @property
    def bits_per_character(self) -> float:
        return self.nats_per_character / NATS_PER_BIT

    @property
    def bits_per_byte(self) -> float:
        """Comparable across vocabularies."""
        return self.nats / self.num_bytes / NATS_PER_BIT

    def to_json(self) -> dict[str, float | str]:
        return {
            "protocol": self.protocol,
            "num_tokens": self.num_tokens,
            "num_characters": self.num_characters,
            "num_bytes": self.num_bytes,
            "nats_per_token": self.nats_per_token,
            "nats_per_character": self.nats_per_character,
            "bits_per_character": self.bits_per_character,
            "bits_per_byte": self.bits_per_byte,
        }


def posteriors(logprobs: Sequence[float], priors: Sequence[float]) -> list[float]:
    """p(model | text), proportional to prior * p(text | model); they sum to 1.

    Log-probs are in nats; priors are positive and need not sum to 1. The largest term is subtracted
    before the exponential, so nothing overflows and the sum is never 0.
    """
    joint_M = np.array(logprobs) + exact_math.log(np.array(priors))
    shares = exact_math.exp(joint_M - joint_M.max()).tolist()
    total = fsum(shares)
    return [share / total for share in shares]
