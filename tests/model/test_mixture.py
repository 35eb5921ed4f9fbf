"""Mixtures agree with their formulas, and behave as models."""

from dataclasses import replace
from math import exp, fsum, log

import numpy as np
import pytest
import torch
from tiny_model import TinyModel, V, logprob, logprobs_after, strings

from charlm_model.checkpoint import Checkpoint
from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.families.registry import build
from charlm_model.mixture import Mixing, MixtureKind, MixtureModel, mix
from charlm_model.sampling.draw import logprobs_from
from charlm_model.state import concat_rows
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary

MEMBERS = [TinyModel(seed=seed) for seed in (1, 2, 3)]
WEIGHTS = (0.5, 0.3, 0.2)
KINDS = list(MixtureKind)


def mixture(kind: MixtureKind, weights: tuple[float, ...] = WEIGHTS) -> MixtureModel:
    return MixtureModel(MEMBERS, Mixing(kind, weights))


@pytest.mark.parametrize("kind", KINDS)
def test_probabilities_sum_to_one_everywhere(kind: MixtureKind) -> None:
    model = mixture(kind)
    for ids in [(), (1,), (3, 2, 1)]:
        assert fsum(map(exp, logprobs_after(model, ids))) == pytest.approx(1, abs=1e-9)


def test_linear_is_the_weighted_mean_of_the_probabilities() -> None:
    for ids in [(), (2, 2), (3, 1, 2, 1)]:
        wanted = [
            log(fsum(w * exp(lp) for w, lp in zip(WEIGHTS, lps, strict=True)))
            for lps in zip(*(logprobs_after(member, ids) for member in MEMBERS), strict=True)
        ]
        assert logprobs_after(mixture(MixtureKind.LINEAR), ids) == pytest.approx(wanted, abs=1e-6)


def test_log_linear_is_the_weighted_sum_of_the_log_probs_normalized() -> None:
    weights = (1.5, -0.75, 0.25)
    for ids in [(), (2, 2), (3, 1, 2, 1)]:
        sums = [
            fsum(w * lp for w, lp in zip(weights, lps, strict=True))
            for lps in zip(*(logprobs_after(member, ids) for member in MEMBERS), strict=True)
        ]
        norm = log(fsum(map(exp, sums)))
        found = logprobs_after(mixture(MixtureKind.LOG_LINEAR, weights), ids)
        assert found == pytest.approx([each - norm for each in sums], abs=1e-6)


def test_an_online_mixture_is_bayesian_over_the_whole_text() -> None:
    """Posterior weights make the mixture Bayesian: over whole texts it is linear."""
    for ids in strings(4):
        mean = fsum(
            w * exp(logprob(member, ids)) for w, member in zip(WEIGHTS, MEMBERS, strict=True)
        )
        assert logprob(mixture(MixtureKind.ONLINE), ids) == pytest.approx(log(mean), abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_has_the_same_bits_in_any_chunks_and_batch(kind: MixtureKind) -> None:
    config = ModelConfig(family="gru", vocab_size=V, embedding_size=8, hidden_size=16)
    torch.manual_seed(0)
    members = [build(config).eval(), MEMBERS[0], build(replace(config, family="lstm")).eval()]
    model = MixtureModel(members, Mixing(kind, WEIGHTS))
    ids_4T = torch.randint(V, (4, 9))
    whole_4TV, after = model.advance(ids_4T, model.initial_state(4))

    for row in range(4):
        state = model.initial_state(1)
        parts = []
        for first, last in ((0, 1), (1, 5), (5, 9)):
            logits_1TV, state = model.advance(ids_4T[row : row + 1, first:last], state)
            parts.append(logits_1TV)
        assert torch.equal(torch.cat(parts, dim=1)[0], whole_4TV[row])
        kept = after.select_rows([row])
        assert all(torch.equal(kept[name], state[name]) for name in state.tensors)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_a_state_are_sequences(kind: MixtureKind) -> None:
    model = mixture(kind)
    _, one = model.advance(torch.tensor([[1, 2]]), model.initial_state(1))
    _, two = model.advance(torch.tensor([[3, 3]]), model.initial_state(1))
    alone_1V, _ = model.step(torch.tensor([2]), two.clone())

    together_2V, _ = model.step(torch.tensor([1, 2]), concat_rows([one, two]))

    assert torch.equal(together_2V[1:], alone_1V)


def checkpoint(vocabulary: Vocabulary, digest: str, unit: str = "stream") -> Checkpoint:
    config = ModelConfig(family="gru", vocab_size=vocabulary.size, hidden_size=8, unit=unit)
    return Checkpoint(model=build(config).eval(), vocabulary=vocabulary, report={}, digest=digest)


def test_a_mixture_digest_depends_on_kind_weights_and_members() -> None:
    one, two = checkpoint(ByteVocabulary(), "1"), checkpoint(ByteVocabulary(), "2")
    equal = Mixing(MixtureKind.LINEAR, (1, 1))

    digests = [
        mix([one, two], equal).digest,
        mix([two, one], equal).digest,
        mix([one, two], Mixing(MixtureKind.LINEAR, (1, 2))).digest,
        mix([one, two], Mixing(MixtureKind.ONLINE, (1, 1))).digest,
    ]

    assert len(set(digests)) == 4
    assert mix([one, two], Mixing(MixtureKind.LINEAR, (0.5, 0.5))).digest == digests[0]


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([checkpoint(CharVocabulary("ab"), "2")], "vocabularies of the models differ"),
        ([checkpoint(ByteVocabulary(), "2", unit="line")], "unit of one model is a stream"),
        ([], "1 models and 2 weights"),
    ],
)
def test_models_that_cannot_be_mixed_are_refused(others: list[Checkpoint], words: str) -> None:
    with pytest.raises(InvalidConfig, match=words):
        mix([checkpoint(ByteVocabulary(), "1"), *others], Mixing(MixtureKind.LINEAR, (1, 1)))


@pytest.mark.parametrize(
    ("kind", "weights", "words"),
    [
        (MixtureKind.LINEAR, (1.0,), "; it must have from 2 to 16"),
        (MixtureKind.LINEAR, (1.0, 0.0), "; it must be above 0 and at most 100"),
        (MixtureKind.ONLINE, (1.0, -1.0), "; it must be above 0 and at most 100"),
        (MixtureKind.LOG_LINEAR, (1.0, -101.0), "; it must be from -100 to 100"),
        (MixtureKind.LINEAR, (1.0, float("nan")), "nan"),
    ],
)
def test_weights_out_of_range_are_refused(
    kind: MixtureKind, weights: tuple[float, ...], words: str
) -> None:
    with pytest.raises(InvalidConfig, match=words):
        Mixing(kind, weights)


def test_a_bad_member_costs_an_online_mixture_at_most_its_log_weight() -> None:
    hopeless = TinyModel(seed=9, scale=20)
    model = MixtureModel([MEMBERS[0], hopeless], Mixing(MixtureKind.ONLINE, (1, 1)))
    ids = tuple(np.random.default_rng(0).integers(1, V, 200).tolist())

    assert logprob(model, ids) >= logprob(MEMBERS[0], ids) - log(2) - 1e-3
    logits_1TV, _ = model.advance(torch.tensor([[0, *ids]]), model.initial_state(1))
    assert np.isfinite(logprobs_from(logits_1TV[0].numpy())).all()
