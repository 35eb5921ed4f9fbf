"""Decoding: bursts of steps, each of which samples a token for every live row and feeds it.

Legend: K steps, B live rows, R rows that return details, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from charlm_model.constraints.guide import guided
from charlm_model.sampling.draw import logprobs_from
from charlm_model.sampling.sampler import sample_rows
from charlm_model.scoring import chosen
from charlm_server.engine.batch import RowBatch
from charlm_server.engine.sequence import Sequence
from charlm_server.engine.token_columns import Float32s, Ids, TokenColumns, details

MAX_KEPT_LOGITS = 1 << 21  # of one burst, for details: 16 MB once they are in float64


@dataclass(frozen=True, slots=True)
class _Step:
    """One token for every live row."""

    ids_B: Ids
    logprobs_B: Float32s
    sampling_logprobs_B: Float32s
    log_masses_B: Float32s  # of what the constraints left; 0 for rows without one
    detailed_RV: Tensor  # pending logits of the rows that return details


def burst(batch: RowBatch, num_steps: int) -> int:
    """Sample up to `num_steps` tokens for every live row into its backlog; returns how many.

    Tokens past a row's end are sampled too, and discarded later; that is safe because a token's
    random number depends on its seed, output and position alone.
    """
    if batch.is_plain:
        batch.sample(num_steps)
        return num_steps
    detailed = [row for row, live in enumerate(batch.sequences) if live.job.returns.details]
    if detailed:
        kept_per_step = len(detailed) * batch.logits_BV.shape[1]
        num_steps = max(1, min(num_steps, MAX_KEPT_LOGITS // kept_per_step))
    steps = [_step(batch, detailed) for _ in range(num_steps)]
    batch.backlog.add(_by_row(batch.sequences, steps, detailed))
    return num_steps


def _step(batch: RowBatch, detailed: list[int]) -> _Step:
    live = batch.sequences
    logits_BV = batch.logits_BV
    logprobs_BV = logprobs_from(logits_BV.numpy())
    allowed_BV, log_masses_B = guided(logprobs_BV, [sequence.guide for sequence in live])
    ids_B, sampling_logprobs_B = sample_rows(
        allowed_BV,
        [sequence.job.params for sequence in live],
        [sequence.recent for sequence in live],
        batch.counters.uniforms(0),
    )
    detailed_RV = logits_BV[detailed]  # a copy: the step may write over the logits
    ids = ids_B.tolist()
    for sequence, token in zip(live, ids, strict=True):
        if sequence.job.params.is_penalizing:
            sequence.recent.append(token)
        if sequence.guide is not None:
            sequence.guide.take(token)
    batch.step(ids)
    return _Step(
        ids_B,
        chosen(logprobs_BV, ids_B),
        sampling_logprobs_B.astype(np.float32),
        log_masses_B.astype(np.float32),
        detailed_RV,
    )


def _by_row(
    sequences: list[Sequence], steps: list[_Step], detailed: list[int]
) -> list[TokenColumns]:
    """The same tokens, one run for each row instead of one line for each step."""
    ids_BK = np.stack([step.ids_B for step in steps], axis=1)
    logprobs_BK = np.stack([step.logprobs_B for step in steps], axis=1)
    sampling_BK = np.stack([step.sampling_logprobs_B for step in steps], axis=1)
    log_masses_BK = np.stack([step.log_masses_B for step in steps], axis=1)
    detailed_RKV = torch.stack([step.detailed_RV for step in steps], dim=1)
    return [
        TokenColumns(
            ids_T=ids_BK[row],
            logprobs_T=logprobs_BK[row],
            sampling_logprobs_T=sampling_BK[row],
            constraint_log_masses_T=None if sequence.guide is None else log_masses_BK[row],
            **(
                details(detailed_RKV[detailed.index(row)], ids_BK[row], sequence.job.returns)
                if row in detailed
                else {}
            ),
        )
        for row, sequence in enumerate(sequences)
    ]
