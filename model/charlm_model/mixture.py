"""Mixes several models with one vocabulary into one model.

Legend: B batch, T time, M members, V vocabulary. Natural logarithms, float64 until the end.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from charlm_model import exact_math
from charlm_model.checkpoint import Checkpoint
from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.processors import Floats
from charlm_model.state import State
from charlm_model.text.vocabulary import Vocabulary

FAMILY = "mixture"
MAX_MEMBERS = 16
MAX_WEIGHT = 100.0
_LOG_WEIGHTS, _PENDING = "log_weights", "pending_logprobs"


class MixtureKind(Enum):
    """How distributions are combined."""

    LINEAR = "linear"  # the weighted mean of the probabilities
    LOG_LINEAR = "log_linear"  # the weighted sum of the log-probs, normalized
    ONLINE = "online"  # linear, weighted by the members' posteriors given the text so far


@dataclass(frozen=True, slots=True)
class Mixing:
    """A kind and the members' weights; raises InvalidConfig for weights out of range."""

    kind: MixtureKind
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self.weights) <= MAX_MEMBERS:
            raise InvalidConfig(
                f"A mixture has {len(self.weights)} models; it must have from 2 to {MAX_MEMBERS}."
            )
        low = -MAX_WEIGHT if self.kind is MixtureKind.LOG_LINEAR else 0.0
        for weight in self.weights:
            is_high_enough = weight >= low if self.kind is MixtureKind.LOG_LINEAR else weight > low
            if not (isfinite(weight) and is_high_enough and weight <= MAX_WEIGHT):
                least = f"from {low:g} to" if low else "above 0 and at most"
                raise InvalidConfig(
                    f"A weight of a {self.kind.value} mixture is {weight}; it must be "
                    f"{least} {MAX_WEIGHT:g}."
                )

    @property
    def normalized(self) -> tuple[float, ...]:
        """The effective weights: those of linear kinds sum to 1."""
        if self.kind is MixtureKind.LOG_LINEAR:
            return self.weights
        total = sum(self.weights)
        return tuple(weight / total for weight in self.weights)


class MixtureModel(LanguageModel):
    """A model whose state is its members' states, and for ONLINE their log-posteriors.

    It is not trained, and it shares its members with other users.
    """

    def __init__(self, members: Sequence[LanguageModel], mixing: Mixing) -> None:
        first = members[0].config
        super().__init__(ModelConfig(family=FAMILY, vocab_size=first.vocab_size, unit=first.unit))
        self._members, self._mixing = tuple(members), mixing
        self._weights_M: Floats = np.array(mixing.normalized)

    @property
    def num_parameters(self) -> int:
        return sum(member.num_parameters for member in self._members)

    def initial_state(self, batch_size: int) -> State:
        tensors = {
            _named(number, name): tensor
            for number, member in enumerate(self._members)
            for name, tensor in member.initial_state(batch_size).tensors.items()
        }
        if self._mixing.kind is MixtureKind.ONLINE:
            log_weights_M = torch.from_numpy(exact_math.log(self._weights_M))
            tensors[_LOG_WEIGHTS] = log_weights_M.repeat(batch_size, 1)
            # The start of a text is not predicted, so it does not change the weights.
            shape = batch_size, len(self._members), self.config.vocab_size
            tensors[_PENDING] = torch.zeros(shape)
        return State(tensors)

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        return self.advance(ids_BT, state)

    @torch.inference_mode()
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        after: dict[str, Tensor] = {}
        logprobs_MBTV = np.empty((len(self._members), *ids_BT.shape, self.config.vocab_size))
        for number, member in enumerate(self._members):
            logits_BTV, member_state = member.advance(ids_BT, self._state_of(number, state))
            logprobs_MBTV[number] = _logprobs(logits_BTV)
            after |= {_named(number, name): t for name, t in member_state.tensors.items()}
        if self._mixing.kind is MixtureKind.LOG_LINEAR:
            mixed_BTV = sum(
                weight * logprobs_BTV
                for weight, logprobs_BTV in zip(self._weights_M, logprobs_MBTV, strict=True)
            )
            mixed_BTV -= mixed_BTV.max(axis=-1, keepdims=True)
        else:
            log_weights_MBT = self._log_weights(ids_BT, state, logprobs_MBTV, after)
            mixed_BTV = _log_sum(logprobs_MBTV + log_weights_MBT[..., None])
        return torch.from_numpy(mixed_BTV.astype(np.float32)), State(after)

    def _state_of(self, number: int, state: State) -> State:
        prefix = _named(number, "")
        return State(
            {
                name.removeprefix(prefix): tensor
                for name, tensor in state.tensors.items()
                if name.startswith(prefix)
            }
        )

    def _log_weights(
        self, ids_BT: Tensor, state: State, logprobs_MBTV: Floats, after: dict[str, Tensor]
    ) -> Floats:
        """Each member's log-weight at each position; ONLINE by its log-prob of the text so far."""
        log_weights_MBT = np.empty(logprobs_MBTV.shape[:-1])
        if self._mixing.kind is MixtureKind.LINEAR:
            log_weights_MBT[:] = exact_math.log(self._weights_M)[:, None, None]
            return log_weights_MBT
        log_weights_MB = state[_LOG_WEIGHTS].numpy().T
        pending_MBV = state[_PENDING].numpy().transpose(1, 0, 2).astype(np.float64)
        rows = np.arange(len(ids_BT))
        # Token by token, so that a text gives the same bits in any chunks.
        for position, ids_B in enumerate(ids_BT.numpy().T):
            log_weights_MB = log_weights_MB + pending_MBV[:, rows, ids_B]
            log_weights_MB = log_weights_MB - _log_sum(log_weights_MB)
            log_weights_MBT[:, :, position] = log_weights_MB
            pending_MBV = logprobs_MBTV[:, :, position].astype(np.float32).astype(np.float64)
        after[_LOG_WEIGHTS] = torch.from_numpy(np.ascontiguousarray(log_weights_MB.T))
        pending_BMV = pending_MBV.transpose(1, 0, 2).astype(np.float32, order="C")
        after[_PENDING] = torch.from_numpy(pending_BMV)
        return log_weights_MBT


def mix(checkpoints: Sequence[Checkpoint], mixing: Mixing) -> Checkpoint:
    """The mixture as a checkpoint in memory. Raises InvalidConfig if models cannot be mixed."""
    first = checkpoints[0]
    if len(checkpoints) != len(mixing.weights):
        raise InvalidConfig(
            f"{len(checkpoints)} models and {len(mixing.weights)} weights were given."
        )
    for other in checkpoints[1:]:
        if _spelling(other.vocabulary) != _spelling(first.vocabulary):
            raise InvalidConfig(
                "The vocabularies of the models differ; only models with the same tokens can "
                "be mixed. Train them with one vocabulary: the byte vocabulary is always the same."
            )
        if other.config.unit != first.config.unit:
            raise InvalidConfig(
                f"The unit of one model is a {first.config.unit}, that of another a "
                f"{other.config.unit}; only models with the same unit can be mixed."
            )
    model = MixtureModel([checkpoint.model for checkpoint in checkpoints], mixing).eval()
    return Checkpoint(
        model=model,
        vocabulary=first.vocabulary,
        report={},
        digest=_digest([checkpoint.digest for checkpoint in checkpoints], mixing),
    )


def _spelling(vocabulary: Vocabulary) -> tuple[object, list[bytes]]:
    tokens = [vocabulary.token_bytes(token_id) for token_id in range(vocabulary.size)]
    return vocabulary.to_json(), tokens


def _digest(digests: Sequence[str], mixing: Mixing) -> str:
    """SHA-256 of the members' digests, the kind and the weights."""
    weights = [weight.hex() for weight in mixing.normalized]
    text = "\n".join(["charlm mixture 1", mixing.kind.value, *digests, *weights])
    return hashlib.sha256(text.encode()).hexdigest()


def _named(number: int, name: str) -> str:
    return f"member_{number}.{name}"


def _logprobs(logits_BTV: Tensor) -> Floats:
    logprobs_NV = logprobs_from(logits_BTV.flatten(0, 1).numpy())
    return logprobs_NV.reshape(logits_BTV.shape)


def _log_sum(logs_M: Floats) -> Floats:
    """Log-sum-exp over the members, added in order.

    `exact_math.log_row_sums_of_exp` adds in another order, which would change the bits of mixtures.
    """
    best = logs_M.max(axis=0)
    total = np.zeros_like(best)
    for logs in logs_M:
        total += exact_math.exp(logs - best)
    summed: Floats = best + exact_math.log(total)
    return summed
