"""Samples outputs conditioned on a constraint: by rejection or by sequential Monte Carlo.

The target is the processed distribution (after temperature and the filters), conditioned on the
finished output matching the constraint. Both methods are generators that yield after every step, so
that the caller can do other work. Legend: B particles or attempts, V vocabulary.
"""

from collections.abc import Callable, Generator, Sequence
from copy import copy
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from charlm_model import exact_math
from charlm_model.constraints.guide import Guide, masked
from charlm_model.inference.batched_steps import Stepper
from charlm_model.sampling.draw import Ints, draw, logprobs_from
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.philox import uniforms
from charlm_model.sampling.processors import Floats, processed
from charlm_model.state import State

MAX_NEW_TOKENS = 1 << 20  # positions are below this in the random counters
_RESAMPLING, _CHOICE = 1 << 62, 1 << 63  # counters that no token uses
_RESAMPLE_BELOW = 0.5  # effective sample size, as a fraction of the particles

Steps = Generator[None, None, "SampledOutput"]


class NoMatch(Exception):
    """No output that matches the constraint was found."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SamplingTask:
    """Where and how to sample: the state after the prompt, and the parameters."""

    stepper: Stepper
    state: State  # one row
    logits_1V: Tensor
    recent: Sequence[int]  # token ids for the penalties
    params: SamplingParams
    seed: int
    output: int
    new_guide: Callable[[], Guide]


@dataclass(kw_only=True)
class SampledOutput:
    """One output: its tokens, with the end of text, their log-probs and log-masses (nats)."""

    guide: Guide
    recent: list[int]
    ids: list[int] = field(default_factory=list)
    sampling_logprobs: list[float] = field(default_factory=list)
    log_masses: list[float] = field(default_factory=list)
    log_evidence: float | None = None
    effective_sample_size: float | None = None

    def take(self, token_id: int, logprob: float, log_mass: float) -> None:
        self.ids.append(token_id)
        self.recent.append(token_id)
        self.sampling_logprobs.append(logprob)
        self.log_masses.append(log_mass)
        self.guide.take(token_id)

    @property
    def is_over(self) -> bool:
        return self.guide.is_over

    def fork(self) -> "SampledOutput":
        return SampledOutput(
            guide=copy(self.guide),
            recent=self.recent.copy(),
            ids=self.ids.copy(),
            sampling_logprobs=self.sampling_logprobs.copy(),
            log_masses=self.log_masses.copy(),
        )


def rejection_sampling(task: SamplingTask, max_attempts: int, num_together: int) -> Steps:
    """The first output that matches, which follows the conditional distribution exactly.

    Attempts run together, but the match with the lowest number is taken; taking the first to finish
    would favor short outputs. Raises NoMatch.
    """
    for first in range(0, max_attempts, num_together):
        numbers = np.arange(first, min(first + num_together, max_attempts))
        attempts = [_start(task) for _ in numbers]
        rows, live = _Rows(task, len(attempts)), attempts
        while not _is_decided(attempts):
            kept = np.array([row for row, each in enumerate(live) if not each.is_over])
            rows.keep(kept)
            live, numbers = [live[row] for row in kept], numbers[kept]
            sampling_BV = rows.sampling_logprobs(live)
            ids_B = draw(sampling_BV, _uniforms(task, numbers, len(live[0].ids)))
            for attempt, token_id, logprobs_V in zip(live, ids_B, sampling_BV, strict=True):
                log_mass = _mass(logprobs_V, attempt.guide)
                attempt.take(int(token_id), float(logprobs_V[token_id]), log_mass)
            rows.step(ids_B)
            yield
        for attempt in attempts:
            if attempt.is_over and attempt.guide.is_accepting:
                return attempt
    raise NoMatch


def _is_decided(attempts: Sequence[SampledOutput]) -> bool:
    """Whether the first matching attempt is known, or that there is none."""
    for attempt in attempts:
        if not attempt.is_over:
            return False
        if attempt.guide.is_accepting:
            return True
    return True


def _mass(sampling_V: Floats, guide: Guide) -> float:
    allowed_V = guide.allowed_V
    assert allowed_V is not None
    if np.isneginf(sampling_V[allowed_V]).all():
        return -np.inf  # the filters exclude all allowed tokens
    return float(masked(sampling_V[None], allowed_V[None])[1][0])


def sequential_monte_carlo(task: SamplingTask, num_particles: int) -> Steps:
    """One of several particles that only sample allowed tokens, weighted by the mass these had.

    Particles are resampled systematically when the effective sample size is low. The mean weight is
    an unbiased estimate of the constraint's probability. Raises NoMatch. Source: Doucet, de Freitas
    & Gordon (2001), chapter 1.
    """
    particles = [_start(task) for _ in range(num_particles)]
    numbers = np.arange(num_particles)
    weights_B = np.zeros(num_particles)
    log_evidence = 0.0
    rows = _Rows(task, num_particles)
    position, is_last = 0, False
    while not is_last:
        uniforms_B = _uniforms(task, numbers, position)
        weights_B += _propose(particles, rows.sampling_logprobs(particles), uniforms_B)
        if weights_B.max() == -np.inf:
            raise NoMatch
        rows.step(np.array([particle.ids[-1] for particle in particles]))
        yield
        is_last = all(particle.is_over for particle in particles)
        if not is_last and _effective(weights_B) < _RESAMPLE_BELOW * num_particles:
            log_evidence += _log_mean(weights_B)
            u = _uniforms(task, np.array([0]), _RESAMPLING + position)
            chosen = _systematic(weights_B, float(u[0]))
            particles = [particles[row].fork() for row in chosen]
            rows.keep(chosen)
            weights_B = np.zeros(num_particles)
        position += 1
    u = _uniforms(task, np.array([0]), _CHOICE)
    output = particles[int(draw((weights_B - weights_B.max())[None], u)[0])]
    output.log_evidence = log_evidence + _log_mean(weights_B)
    output.effective_sample_size = _effective(weights_B)
    return output


def _propose(particles: Sequence[SampledOutput], sampling_BV: Floats, uniforms_B: Floats) -> Floats:
    """Sample an allowed token for each live particle; returns the log-weights of this step."""
    log_weights_B = np.zeros(len(particles))
    for row, particle in enumerate(particles):
        allowed_V = particle.guide.allowed_V
        if allowed_V is None:
            continue
        if sampling_BV[row][allowed_V].max() == -np.inf:  # the filters exclude all allowed tokens
            particle.guide.end()
            particle.ids.append(0)
            log_weights_B[row] = -np.inf
            continue
        proposal_1V, log_mass_1 = masked(sampling_BV[row : row + 1], allowed_V[None])
        log_mass = float(log_mass_1[0])
        token_id = int(draw(proposal_1V, uniforms_B[row : row + 1])[0])
        particle.take(token_id, float(proposal_1V[0, token_id]), log_mass)
        is_refused = particle.is_over and not particle.guide.is_accepting
        log_weights_B[row] = -np.inf if is_refused else log_mass
    return log_weights_B


class _Rows:
    """State and pending logits of all rows; finished ones keep running, unread."""

    def __init__(self, task: SamplingTask, num_rows: int) -> None:
        self._task = task
        self._state = task.state.select_rows([0] * num_rows)
        self._logits_BV = task.logits_1V.expand(num_rows, -1)

    def keep(self, rows: Ints) -> None:
        if len(rows) != len(self._logits_BV) or (rows != np.arange(len(rows))).any():
            self._state = self._state.select_rows(rows.tolist())
            self._logits_BV = self._logits_BV[rows.tolist()]

    def sampling_logprobs(self, live: Sequence[SampledOutput]) -> Floats:
        logprobs_BV = logprobs_from(self._logits_BV.numpy())
        params = self._task.params
        if params.is_plain:
            return logprobs_BV
        return processed(logprobs_BV, [params] * len(live), [each.recent for each in live])

    def step(self, ids_B: Ints) -> None:
        stepper = self._task.stepper
        self._logits_BV, self._state = stepper.step(ids_B.tolist(), self._state)


def _start(task: SamplingTask) -> SampledOutput:
    return SampledOutput(guide=task.new_guide(), recent=list(task.recent))


def _uniforms(task: SamplingTask, numbers: Ints, position: int) -> Floats:
    """Uniforms of a position, one a row; number 0 draws what plain sampling would."""
    words_B = numbers.astype(np.uint64) * np.uint64(MAX_NEW_TOKENS) + np.uint64(position)
    same = np.ones(len(numbers), dtype=np.uint64)
    return uniforms(same * np.uint64(task.seed), same * np.uint64(task.output), words_B)


def _log_mean(log_weights_B: Floats) -> float:
    total = exact_math.log_row_sums_of_exp(log_weights_B[None])
    return float(total[0, 0]) - exact_math.log_of_number(len(log_weights_B))


def _effective(log_weights_B: Floats) -> float:
    """The effective sample size. Source: Kong (1992)."""
    weights_B = exact_math.exp(log_weights_B - log_weights_B.max())
    total, total_of_squares = exact_math.row_sums(np.stack([weights_B, weights_B**2]))
    return float((total**2 / total_of_squares)[0])


def _systematic(log_weights_B: Floats, u: float) -> Ints:
    """Systematic resampling. Source: Kitagawa (1996)."""
    num = len(log_weights_B)
    cumulated_B = exact_math.exp(log_weights_B - log_weights_B.max()).cumsum()
    points_B = (np.arange(num) + u) / num * cumulated_B[-1]
    chosen: Ints = np.minimum(np.searchsorted(cumulated_B, points_B, side="right"), num - 1)
    return chosen
