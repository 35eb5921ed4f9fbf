"""Constrained outputs that are sampled whole, given their language, before they are shown.

Legend: T tokens, V vocabulary.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from charlm_model.constraints.conditional_sampling import (
    NoMatch,
    SampledOutput,
    SamplingTask,
    Steps,
    rejection_sampling,
    sequential_monte_carlo,
)
from charlm_server.engine.generation import ConstraintSearch
from charlm_server.engine.search import PrefixState
from charlm_server.engine.sequence import GenerationJob, Sequence
from charlm_server.engine.token_columns import Ids, TokenColumns, columns_of
from charlm_server.errors.base import InvalidRequest

CHUNK = 64  # tokens whose details are made in one go

Take = Callable[[Sequence, TokenColumns], None]


def draw_outputs(job: GenerationJob, start: PrefixState, take: Take) -> Iterator[None]:
    """Sample each output of a job and put it out. Raises InvalidRequest if none is found."""
    search = job.stopping.search
    assert search is not None
    for sequence in job.sequences:
        if sequence.has_ended:
            continue
        task = _task(sequence, start)
        method = _monte_carlo if search.is_monte_carlo else _rejection
        try:
            output = yield from method(task, search)
        except NoMatch:
            raise _unmet(search) from None
        sequence.adopt(output)
        yield from _told(sequence, output, start, take)


def _rejection(task: SamplingTask, search: ConstraintSearch) -> Steps:
    return rejection_sampling(task, search.num, search.num_together)


def _monte_carlo(task: SamplingTask, search: ConstraintSearch) -> Steps:
    return sequential_monte_carlo(task, search.num)


def _task(sequence: Sequence, start: PrefixState) -> SamplingTask:
    job = sequence.job
    constraint = job.stopping.constraint
    assert constraint is not None
    return SamplingTask(
        stepper=start.stepper,
        state=start.state,
        logits_1V=start.logits_1V,
        recent=sequence.recent,
        params=job.params,
        seed=job.seed,
        output=sequence.index,
        new_guide=partial(job.stopping.new_guide, fits_length=constraint.counts_symbols),
    )


def _unmet(search: ConstraintSearch) -> InvalidRequest:
    if search.is_monte_carlo:
        allowed = "larger, or the sampling less narrow: every particle ran into a dead end"
        return InvalidRequest("constraint.num_particles", search.num, allowed)
    allowed = "larger, or the mode SMC: none of so many outputs was in the language"
    return InvalidRequest("constraint.max_attempts", search.num, allowed)


def _told(
    sequence: Sequence, output: SampledOutput, start: PrefixState, take: Take
) -> Iterator[None]:
    """Read the output for its log-probs and details, with the bits of Score."""
    pending_11V, state = start.logits_1V[None], start.state.clone()
    for first in range(0, len(output.ids), CHUNK):
        ids = output.ids[first : first + CHUNK]
        after_1TV, state = start.stepper.advance([ids], state)
        logits_1TV = torch.cat([pending_11V, after_1TV[:, :-1]], dim=1)
        pending_11V = after_1TV[:, -1:]
        ids_T: Ids = np.array(ids, dtype=np.int64)
        columns = columns_of(logits_1TV[0], ids_T, sequence.job.returns)
        these = slice(first, first + CHUNK)
        columns = replace(
            columns,
            sampling_logprobs_T=np.array(output.sampling_logprobs[these], dtype=np.float32),
            constraint_log_masses_T=np.array(output.log_masses[these], dtype=np.float32),
        )
        take(sequence, columns)
        yield
