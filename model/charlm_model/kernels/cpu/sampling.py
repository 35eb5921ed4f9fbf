"""From logits to log-probs and to a sampled token, row by row.

Legend: R rows, V vocabulary.
"""

import numpy as np

from charlm_model.kernels.cpu.elementary import exp_64, lane_sum_64, log_64
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.simd import DOUBLE_LANES, add, lane, load, splat, store

_MIN_LOGPROB = -708.0  # of the smallest probability that is not taken for 0

_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_ADDENDS = np.uint64(0x9E3779B9), np.uint64(0xBB67AE85)
_LOW, _WORD = np.uint64(0xFFFFFFFF), np.uint64(32)


@compiled
def workspace_for(vocab_size):
    """Two buffers of whole vectors for the functions below, padded with the lowest log-prob."""
    lanes = -(-vocab_size // DOUBLE_LANES) * DOUBLE_LANES
    return np.full(lanes, _MIN_LOGPROB), np.empty(lanes)


@compiled
def logprobs_of(logits_V, logprobs):
    """Log-softmax in float64 into `logprobs`, which is padded to whole vectors."""
    vocab_size = len(logits_V)
    largest = logits_V[0]
    for v in range(1, vocab_size):
        largest = max(largest, logits_V[v])
    top = np.float64(largest)
    for v in range(vocab_size):
        logprobs[v] = np.float64(logits_V[v]) - top
    total = splat(0.0)
    for v in range(0, len(logprobs), DOUBLE_LANES):
        total = add(total, exp_64(load(logprobs, v)))
    log_total = lane(log_64(splat(lane_sum_64(total))), 0)
    for v in range(vocab_size):
        logprobs[v] -= log_total


@compiled
def draw_token(logprobs, powers, vocab_size, uniform):
    """Inverse-CDF sampling: the first token whose cumulative probability exceeds `uniform`."""
    for v in range(0, len(logprobs), DOUBLE_LANES):
        store(powers, v, exp_64(load(logprobs, v)))
    total = 0.0
    for v in range(vocab_size):
        if logprobs[v] > _MIN_LOGPROB:  # excluded tokens have probability 0
            total += powers[v]
        powers[v] = total
    target = uniform * total
    token = 0
    while token < vocab_size - 1 and powers[token] <= target:
        token += 1
    return token


@compiled
def uniform(seed, output, position):
    """One number in [0, 1): Philox4x32-10, as in `charlm_model.sampling.philox`."""
    c0, c1, c2, c3 = position & _LOW, position >> _WORD, output & _LOW, np.uint64(0)
    k0, k1 = seed & _LOW, seed >> _WORD
    for _ in range(10):
        p0, p1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> _WORD) ^ c1 ^ k0, p1 & _LOW, (p0 >> _WORD) ^ c3 ^ k1, p0 & _LOW
        k0, k1 = (k0 + _ADDENDS[0]) & _LOW, (k1 + _ADDENDS[1]) & _LOW
    return np.float64(((c0 << _WORD) | c1) >> np.uint64(11)) * 2.0**-53


@compiled
def logprobs_of_rows(logits_RV, logprobs_RV):
    """`logprobs_of` for every row."""
    logprobs, _ = workspace_for(logits_RV.shape[1])
    for row in range(len(logits_RV)):
        logprobs_of(logits_RV[row], logprobs)
        for v in range(logits_RV.shape[1]):
            logprobs_RV[row, v] = logprobs[v]


@compiled
def draw_rows(logprobs_RV, uniforms_R, ids_R):
    """`draw_token` for every row."""
    vocab_size = logprobs_RV.shape[1]
    logprobs, powers = workspace_for(vocab_size)
    for row in range(len(logprobs_RV)):
        for v in range(vocab_size):
            logprobs[v] = logprobs_RV[row, v]
        ids_R[row] = draw_token(logprobs, powers, vocab_size, uniforms_R[row])


@compiled
def sample_rows(logits_R1V, draws, step, workspace, ids_R1, ids_RK, logprobs_RK):
    """Step number `step` of a burst: a token for each row from the model's own distribution.

    `draws` has a column each for seeds, output indices and positions of step 0.
    """
    logprobs, powers = workspace
    for row in range(len(ids_R1)):
        logprobs_of(logits_R1V[row, 0], logprobs)
        position = draws[row, 2] + np.uint64(step)
        number = uniform(draws[row, 0], draws[row, 1], position)
        token = draw_token(logprobs, powers, logits_R1V.shape[2], number)
        ids_R1[row, 0] = token
        ids_RK[row, step] = token
        logprobs_RK[row, step] = np.float32(logprobs[token])


@compiled
def logprobs_of_drawn(drawn_KR3, logprobs_RK):
    """Log-probs as `logprobs_of` computes them, from (id, logit - largest, sum of e^logit)."""
    for step in range(len(drawn_KR3)):
        for row in range(drawn_KR3.shape[1]):
            logprob = drawn_KR3[step, row, 1] - lane(log_64(splat(drawn_KR3[step, row, 2])), 0)
            logprobs_RK[row, step] = np.float32(logprob)
