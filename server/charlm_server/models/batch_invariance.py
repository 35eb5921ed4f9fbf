"""Batch invariance: in which batch sizes a row has the bits it has alone, measured at load.

It also warms the model up: kernels are compiled, and on a GPU recorded, before the first call.

Legend: B rows, R of them with the probe, T tokens read, K tokens sampled, V vocabulary.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from charlm_model.language_model import Burst, LanguageModel
from charlm_model.sampling.philox import Counters
from charlm_model.state import State


@dataclass(frozen=True, slots=True)
class BatchInvariance:
    """The batch sizes to use, and whether a row has the same bits in all of them."""

    sizes: tuple[int, ...]
    is_batch_invariant: bool


@torch.inference_mode()
def measure_batch_invariance(model: LanguageModel, sizes: Iterable[int]) -> BatchInvariance:
    """Keep the sizes in which a probe row has the bits it has in the largest one.

    Every size is tried with the probe in several rows: tokens are read and then sampled, one by one
    and in one go. If not even the largest size agrees with itself, rows are computed one at a time.
    """
    descending = sorted(set(sizes), reverse=True)
    results = {size: _results_of(model, size) for size in descending}
    wanted = results[descending[0]]
    if len(wanted) > 1:
        return BatchInvariance((1,), is_batch_invariant=len(_results_of(model, 1)) == 1)
    passing = tuple(size for size in reversed(descending) if results[size] == wanted)
    return BatchInvariance(passing, is_batch_invariant=True)


def _results_of(model: LanguageModel, size: int) -> set[bytes]:
    """All the bits that the probe gets in batches of this size: one result if it passes."""
    generator = torch.Generator().manual_seed(0)
    shape = size, model.num_probe_tokens
    ids_BT = torch.randint(model.config.vocab_size, shape, generator=generator)
    probe_rows = sorted({0, size // 3, size // 2, size - 1})
    ids_BT[probe_rows] = torch.arange(model.num_probe_tokens) % model.config.vocab_size
    ways = _in_steps(model, ids_BT, probe_rows), _in_one_go(model, ids_BT, probe_rows)
    return {_bits(tensors, place) for tensors in ways for place in range(len(probe_rows))}


def _in_steps(model: LanguageModel, ids_BT: Tensor, rows: list[int]) -> list[Tensor]:
    """All results of some rows: logits, sampled tokens with log-probs, and the state."""
    state = model.initial_state(len(ids_BT))
    read, bursts = [], []
    for ids_B in ids_BT.unbind(dim=1):
        logits_BV, state = model.step(ids_B, state)
        read.append(logits_BV[rows])
    for step in range(model.num_probe_tokens):
        burst, logits_BV, state = model.sample(logits_BV, state, _counters(len(ids_BT), step), 1)
        bursts.append(burst)
    drawn = Burst(*(np.concatenate(columns, axis=1) for columns in zip(*bursts, strict=True)))
    return _of_rows(rows, torch.stack(read, dim=1), drawn, logits_BV, state)


def _in_one_go(model: LanguageModel, ids_BT: Tensor, rows: list[int]) -> list[Tensor]:
    """The same results, from two calls of the model."""
    num_rows, num_tokens = ids_BT.shape
    read_BTV, state = model.advance(ids_BT, model.initial_state(num_rows))
    drawn, logits_BV, state = model.sample(
        read_BTV[:, -1], state, _counters(num_rows, 0), num_tokens
    )
    return _of_rows(rows, read_BTV[rows], drawn, logits_BV, state)


def _of_rows(
    rows: list[int], read_RTV: Tensor, drawn: Burst, logits_BV: Tensor, state: State
) -> list[Tensor]:
    sampled = [torch.from_numpy(column_BK[rows]) for column_BK in drawn]
    return [read_RTV, *sampled, logits_BV[rows], *state.select_rows(rows).tensors.values()]


def _counters(num_rows: int, position: int) -> Counters:
    same_B = np.zeros(num_rows, np.uint64)
    return Counters(same_B, same_B, same_B + np.uint64(position))


def _bits(tensors: list[Tensor], place: int) -> bytes:
    rows = [tensor[place].cpu().contiguous().view(-1) for tensor in tensors]
    return b"".join(values.view(torch.uint8).numpy().tobytes() for values in rows)
