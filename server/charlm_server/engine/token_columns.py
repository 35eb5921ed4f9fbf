"""Facts about tokens as columns: one array per fact, one entry per token.

Legend: T tokens, V vocabulary, K alternatives.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from charlm_model.sampling.draw import logprobs_from
from charlm_model.scoring import chosen, score_tokens

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]
Ids = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Returns:
    """Which columns are returned beside the ids; each costs time and bytes."""

    logprobs: bool = True
    ranks: bool = False
    entropies: bool = False
    num_alternatives: int = 0
    distributions: bool = False
    is_float64: bool = False  # how the distributions are sent

    @property
    def details(self) -> bool:
        """Whether more than the chosen token's log-probs is returned."""
        return self.ranks or self.entropies or self.num_alternatives > 0 or self.distributions

    def bytes_per_token(self, vocab_size: int) -> int:
        """About what one token takes in a message, for bounds."""
        return 24 + 8 * self.num_alternatives + self._dense_bytes(vocab_size)

    def least_bytes_per_token(self, vocab_size: int) -> int:
        """What one token's id and numbers take in a message at the very least."""
        numbers = 4 * self.logprobs + self.ranks + 4 * self.entropies + 5 * self.num_alternatives
        return 1 + numbers + self._dense_bytes(vocab_size)

    def _dense_bytes(self, vocab_size: int) -> int:
        return (8 if self.is_float64 else 4) * vocab_size if self.distributions else 0


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenColumns:
    """Facts about T tokens in a row; a column that was not asked for is None."""

    ids_T: Ids
    logprobs_T: Float32s  # under the model, at temperature 1, before any processor
    sampling_logprobs_T: Float32s | None = None  # under the distribution that was sampled from
    constraint_log_masses_T: Float32s | None = None  # of the tokens that the constraint allows
    ranks_T: NDArray[np.int32] | None = None  # 1 = the most probable token
    entropies_T: Float32s | None = None  # of the model's distribution, in nats
    top_ids_TK: Ids | None = None
    top_logprobs_TK: Float32s | None = None
    distributions_TV: Float64s | None = None  # log-probs of the whole vocabulary

    def __len__(self) -> int:
        return len(self.ids_T)

    def __getitem__(self, tokens: slice) -> "TokenColumns":
        columns = ((name, getattr(self, name)) for name in _NAMES)
        return TokenColumns(
            **{name: column[tokens] for name, column in columns if column is not None}
        )


_NAMES = tuple(field.name for field in fields(TokenColumns))
NO_TOKENS = TokenColumns(ids_T=np.zeros(0, np.int64), logprobs_T=np.zeros(0, np.float32))


def concat_columns(parts: Sequence[TokenColumns]) -> TokenColumns:
    """The tokens of all parts in a row; all parts have the same columns."""
    if len(parts) == 1:
        return parts[0]
    return TokenColumns(
        **{
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in _NAMES
            if getattr(parts[0], name) is not None
        }
    )


def exact_sum(parts: Iterable[Float32s]) -> float:
    """The sum of all entries, rounded once: however they are cut into parts, the same bits."""
    return fsum(chain.from_iterable(part.tolist() for part in parts))


def columns_of(logits_TV: Tensor, ids_T: Ids, returns: Returns) -> TokenColumns:
    """The columns of tokens, each from the logits before it."""
    logprobs_T = chosen(logprobs_from(logits_TV.numpy()), ids_T)
    return TokenColumns(ids_T=ids_T, logprobs_T=logprobs_T, **details(logits_TV, ids_T, returns))


def details(logits_TV: Tensor, ids_T: Ids, returns: Returns) -> dict[str, NDArray[Any]]:
    """The optional columns, each only if asked for."""
    columns: dict[str, NDArray[Any]] = {}
    if returns.ranks or returns.entropies:
        scores = score_tokens(logits_TV, ids_T)
        columns |= {"ranks_T": scores.ranks} if returns.ranks else {}
        columns |= {"entropies_T": scores.entropies} if returns.entropies else {}
    if returns.num_alternatives or returns.distributions:
        logprobs_TV = logprobs_from(logits_TV.numpy())
        columns |= alternatives(logprobs_TV, returns.num_alternatives)
        if returns.distributions:
            columns["distributions_TV"] = logprobs_TV
    return columns


def alternatives(logprobs_TV: Float64s, num: int) -> dict[str, NDArray[Any]]:
    """The most probable tokens, best first; ties go to the lowest id."""
    if num == 0:
        return {}
    ids_TK = np.argsort(-logprobs_TV, axis=-1, kind="stable")[:, :num]
    logprobs_TK = np.take_along_axis(logprobs_TV, ids_TK, axis=-1)
    return {"top_ids_TK": ids_TK, "top_logprobs_TK": logprobs_TK.astype(np.float32)}
