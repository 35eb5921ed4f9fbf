"""Masks with every logits processor: excluded tokens are never drawn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm_model.constraints.constraint import from_regex
from charlm_model.constraints.guide import Guide, guided, masked
from charlm_model.sampling.params import SamplingParams
from charlm_model.sampling.sampler import sample_rows

V = 6
TOKEN_BYTES = [b"", *(bytes([letter]) for letter in b"abcde")]
CONSTRAINT = from_regex("(ab|c|d{2})+", TOKEN_BYTES)

params = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0, 1e-3, 0.5, 1, 100]),
    top_k=st.integers(0, V + 1),
    top_p=st.floats(0.01, 1),
    min_p=st.floats(0, 1),
    typical_p=st.floats(0.01, 1),
    repetition_penalty=st.sampled_from([1e-6, 0.5, 1, 10]),
    presence_penalty=st.floats(-100, 100),
    frequency_penalty=st.floats(-100, 100),
    logit_bias=st.dictionaries(st.integers(0, V - 1), st.floats(-100, 100), max_size=3),
)
logprobs = st.lists(st.floats(-700, 0), min_size=V, max_size=V).map(
    lambda logits: np.array([logits]) - np.log(np.exp(np.array(logits)).sum())
)


@pytest.mark.slow
@given(params=params, logprobs_1V=logprobs, seed=st.integers(0, 99))
@settings(max_examples=200, deadline=None)
def test_no_parameters_let_an_excluded_token_through(
    params: SamplingParams, logprobs_1V: np.ndarray, seed: int
) -> None:
    guide = Guide(CONSTRAINT, 6)
    uniforms = np.random.default_rng(seed).random((7, 1))
    recent: list[int] = []
    for uniform_1 in uniforms:
        allowed_V = guide.allowed_V
        if allowed_V is None:
            break
        masked_1V, _ = guided(logprobs_1V, [guide])
        ids_1, sampling_1 = sample_rows(masked_1V, [params], [recent], uniform_1)
        assert allowed_V[ids_1[0]]
        assert np.isfinite(sampling_1[0])
        recent.append(int(ids_1[0]))
        guide.take(int(ids_1[0]))

    assert guide.is_over
    assert guide.is_accepting


@given(logprobs_1V=logprobs, mask=st.lists(st.booleans(), min_size=V, max_size=V))
def test_masking_normalizes_and_returns_the_mass(logprobs_1V: np.ndarray, mask: list[bool]) -> None:
    mask[2] = True
    allowed_1V = np.array([mask])

    masked_1V, log_mass_1 = masked(logprobs_1V, allowed_1V)

    assert np.isclose(np.exp(masked_1V).sum(), 1)
    assert np.isneginf(masked_1V[~allowed_1V]).all()
    kept = masked_1V[allowed_1V] + log_mass_1
    assert np.allclose(kept, logprobs_1V[allowed_1V], atol=1e-9)


def test_rows_without_a_guide_keep_their_bits() -> None:
    logprobs_BV = np.log(np.random.default_rng(0).dirichlet(np.ones(V), 4))

    result_BV, log_masses_B = guided(logprobs_BV, [None, Guide(CONSTRAINT, 4), None, None])

    assert (result_BV[[0, 2, 3]] == logprobs_BV[[0, 2, 3]]).all()
    assert (log_masses_B[[0, 2, 3]] == 0).all()
    assert log_masses_B[1] < 0
    alone_1V, alone_1 = guided(logprobs_BV[1:2], [Guide(CONSTRAINT, 4)])
    assert (alone_1V == result_BV[1]).all()
    assert alone_1[0] == log_masses_B[1]
    assert guided(logprobs_BV, [None] * 4)[0] is logprobs_BV


def test_an_ignored_end_of_text_adds_nothing_and_is_allowed_anywhere() -> None:
    guide = Guide(CONSTRAINT, 6, ignores_end_of_text=True)

    guide.take(1)
    allowed_V = guide.allowed_V
    guide.take(0)

    assert allowed_V is not None
    assert allowed_V[0]
    assert guide.state == CONSTRAINT.state_after([1])
    assert not guide.is_over
