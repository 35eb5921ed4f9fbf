"""Which batch sizes give a row the bits it would have alone; measured when the server starts.

Legend: B rows, T tokens.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from charlm_model.language_model import LanguageModel
from charlm_model.state import State

NUM_PROBE_TOKENS = 3


@dataclass(frozen=True, slots=True)
class Certification:
    """The batch sizes to use, and whether a row's bits are the same in all of them."""

    sizes: tuple[int, ...]
    is_batch_invariant: bool


@torch.inference_mode()
def certify(model: LanguageModel, sizes: Iterable[int]) -> Certification:
    """Keep the sizes in which a probe row has the bits it has in the largest one.

    Every size is tried with the probe in several rows, read token by token and in one chunk. Where
    not even the largest size agrees with itself, rows are computed one at a time.
    """
    descending = sorted(set(sizes), reverse=True)
    results = {size: _results_of(model, size) for size in descending}
    wanted = results[descending[0]]
    if len(wanted) > 1:
        return Certification((1,), is_batch_invariant=len(_results_of(model, 1)) == 1)
    passing = tuple(size for size in reversed(descending) if results[size] == wanted)
    return Certification(passing, is_batch_invariant=True)


def _results_of(model: LanguageModel, size: int) -> set[bytes]:
    """All the bits that the probe gets in batches of this size: one result if it passes."""
    generator = torch.Generator().manual_seed(0)
    shape = size, NUM_PROBE_TOKENS
    ids_BT = torch.randint(model.config.vocab_size, shape, generator=generator)
    probe_rows = sorted({0, size // 3, size // 2, size - 1})
    ids_BT[probe_rows] = torch.arange(NUM_PROBE_TOKENS) % model.config.vocab_size
    ways = _in_steps(model, ids_BT), _in_one_go(model, ids_BT)
    return {_bits(logits, state, row) for logits, state in ways for row in probe_rows}


def _in_steps(model: LanguageModel, ids_BT: Tensor) -> tuple[Tensor, State]:
    state = model.initial_state(len(ids_BT))
    logits_T = []
    for ids_B in ids_BT.unbind(dim=1):
        logits_BV, state = model.step(ids_B, state)
        logits_T.append(logits_BV)
    return torch.stack(logits_T, dim=1), state


def _in_one_go(model: LanguageModel, ids_BT: Tensor) -> tuple[Tensor, State]:
    return model.advance(ids_BT, model.initial_state(len(ids_BT)))


def _bits(logits_BTV: Tensor, state: State, row: int) -> bytes:
    tensors = [logits_BTV, *state.tensors.values()]
    rows = [tensor[row].cpu().contiguous().view(-1) for tensor in tensors]
    return b"".join(values.view(torch.uint8).numpy().tobytes() for values in rows)
