"""Gaps and top continuations: what is asked arrives, what is answered comes back."""

import pytest
from fake_server import Script

from charlm.v1 import context_pb2, models_pb2
from charlm_client import Client, Gap, InvalidRequest, Mixture
from charlm_client.api.inference import gap_message
from charlm_client.wire.from_proto import model_from


async def test_a_gap_arrives_whole_and_its_fillings_come_back(
    client: Client, script: Script
) -> None:
    gap = Gap(left="a", right="b", length=3, max_fillings=2, num_particles=9, seed=7)

    filled = await client.fill_gap(gap, model="m", replace_unknown=True)

    (request,) = script.requests
    assert request == gap_message(gap, model="models/m", replace_unknown=True)
    assert (request.left.text, request.right, request.gap_length) == ("a", "b", 3)
    assert (request.max_fillings, request.num_particles, request.seed) == (2, 9, 7)
    assert request.unknown_characters == context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE
    assert [filling.text for filling in filled.fillings] == ["aaa", "bbb"]
    assert filled.fillings[0].token_ids == (1, 1, 1)
    assert filled.fillings[1].posterior == 0.25
    assert filled.fillings[1].total_logprob == -2
    assert (filled.is_exact, filled.effective_sample_size, filled.seed) == (False, 3.5, 7)
    assert filled.log_evidence == -1.5


async def test_a_short_gap_has_no_sample_size(client: Client) -> None:
    filled = await client.fill_gap(Gap(left="", right="", length=1), model="m")

    assert filled.is_exact
    assert filled.effective_sample_size is None


async def test_the_top_continuations_come_back_with_their_bound(
    client: Client, script: Script
) -> None:
    found = await client.top_continuations("x", model="m", length=2, num=3, max_steps=1)

    (request,) = script.requests
    assert (request.context.text, request.length, request.max_steps) == ("x", 2, 1)
    assert [each.text for each in found.continuations] == ["aa", "bb", "cc"]
    assert found.continuations[2].token_ids == (3, 3)
    assert not found.is_complete
    assert (found.missing_logprob_bound, found.num_steps) == (-7.0, 5)


@pytest.mark.parametrize(
    ("gap", "field"),
    [
        (Gap(left="\udcff", right="", length=1), "left"),
        (Gap(left="", right="", length=-1), "gap_length"),
        (Gap(left="", right="", length=1, seed=-1), "seed"),
    ],
)
async def test_a_value_that_no_message_holds_is_named(client: Client, gap: Gap, field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await client.fill_gap(gap, model="m")

    assert refused.value.field == field


def test_a_mixture_has_its_models_and_weights() -> None:
    mixture = models_pb2.Mixture(
        kind="MIXTURE_KIND_LOG_LINEAR", models=["models/a", "models/b"], weights=[1.5, -0.5]
    )

    mixed = model_from(models_pb2.Model(family="MODEL_FAMILY_MIXTURE", mixture=mixture))

    assert mixed.family == "mixture"
    assert mixed.mixture == Mixture(
        kind="log_linear", models=("models/a", "models/b"), weights=(1.5, -0.5)
    )
    assert model_from(models_pb2.Model()).mixture is None


def test_an_unknown_enum_value_is_shown_by_its_number() -> None:
    kinds = model_from(models_pb2.Model(family=models_pb2.MODEL_FAMILY_LSTM, unit=99))

    assert (kinds.family, kinds.unit) == ("lstm", "unknown 99")
