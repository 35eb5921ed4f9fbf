"""Values that no message can hold are named; all others arrive as they are."""

import math

import pytest

from charlm.v1 import context_pb2, sampling_pb2
from charlm_client import Constraint, InvalidRequest, Sampling, Stopping, UnknownCharacter
from charlm_client.wire.to_proto import (
    constraint_message,
    decode_message,
    duration_message,
    encode_message,
    generate_message,
    model_name,
    next_message,
    sampling_message,
    score_message,
    stopping_message,
)

SURROGATE = "ab\udcff"


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(top_k=-1), "sampling.top_k"),
        (Sampling(top_k=2**32), "sampling.top_k"),
        (Sampling(penalty_window=-1), "sampling.penalty_window"),
        (Sampling(seed=-1), "sampling.seed"),
        (Sampling(seed=2**64), "sampling.seed"),
        (Sampling(logit_bias={-1: 0.0}), "sampling.biases.token_id"),
    ],
)
def test_a_sampling_field_out_of_range_is_named(sampling: Sampling, field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        sampling_message(sampling)

    assert caught.value.field == field
    assert str(caught.value).startswith(f"{field} is ")
    assert "it must be an integer from 0 to " in str(caught.value)


@pytest.mark.parametrize("seconds", [math.nan, math.inf, 1e300])
def test_a_time_that_is_not_finite_is_named(seconds: float) -> None:
    with pytest.raises(InvalidRequest, match=r"stopping\.max_time is"):
        stopping_message(Stopping(max_time_s=seconds))
    with pytest.raises(InvalidRequest, match="time_to_live is"):
        duration_message(seconds, "time_to_live")


def test_an_unknown_constraint_mode_lists_the_known_ones() -> None:
    with pytest.raises(InvalidRequest, match="'zz'; it must be one of local_mask, rejection"):
        constraint_message(Constraint(regex="a", mode="zz"))  # type: ignore[arg-type]


def test_the_largest_values_arrive() -> None:
    message = sampling_message(Sampling(seed=2**64 - 1, top_k=2**32 - 1))

    assert (message.seed, message.top_k) == (2**64 - 1, 2**32 - 1)


def test_a_surrogate_is_named_with_its_offset() -> None:
    """As Python hands over command line arguments that are not UTF-8."""
    ways = {
        "context.text": lambda: next_message(SURROGATE, model="a", top_k=1, replace_unknown=False),
        "items[1].text": lambda: score_message(
            ["a", SURROGATE],
            model="a",
            context="",
            end_of_text=False,
            details=False,
            replace_unknown=False,
        ),
        "texts[0]": lambda: encode_message([SURROGATE], model="a", replace_unknown=False),
        "stopping.stop_sequences[0]": lambda: stopping_message(
            Stopping(stop_sequences=(SURROGATE,))
        ),
        "model": lambda: model_name(SURROGATE),
    }
    for field, make in ways.items():
        with pytest.raises(UnknownCharacter, match="offset") as caught:
            make()
        assert caught.value.field == field


def test_ids_out_of_range_are_named() -> None:
    with pytest.raises(InvalidRequest, match=r"sequences\[1\]"):
        decode_message([[1], [-1]], model="a")
    with pytest.raises(InvalidRequest, match="top_k"):
        next_message("x", model="a", top_k=-1, replace_unknown=False)


@pytest.mark.parametrize(
    ("replace_unknown", "policy"),
    [
        (False, context_pb2.UNKNOWN_CHARACTER_POLICY_UNSPECIFIED),
        (True, context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE),
    ],
)
def test_the_policy_for_unknown_characters_arrives(replace_unknown: bool, policy: int) -> None:
    messages = [
        generate_message(
            "x",
            model="a",
            sampling=Sampling(),
            stopping=Stopping(),
            num_outputs=None,
            replace_unknown=replace_unknown,
        ),
        score_message(
            ["x"],
            model="a",
            context="",
            end_of_text=False,
            details=False,
            replace_unknown=replace_unknown,
        ),
        next_message("x", model="a", top_k=1, replace_unknown=replace_unknown),
        encode_message(["x"], model="a", replace_unknown=replace_unknown),
    ]

    assert {message.unknown_characters for message in messages} == {policy}


def test_a_short_name_and_a_whole_one_are_the_same() -> None:
    assert model_name("a") == model_name("models/a") == "models/a"


@pytest.mark.parametrize(
    ("constraint", "kind"),
    [
        (Constraint(regex="a+"), "regex"),
        (Constraint(choices=("a", "b"), mode="rejection", max_attempts=9), "choices"),
        (Constraint(allowed_characters="ab", mode="smc", num_particles=3), "allowed_characters"),
    ],
)
def test_a_constraint_keeps_its_kind_mode_and_numbers(constraint: Constraint, kind: str) -> None:
    message = constraint_message(constraint)

    assert message.WhichOneof("kind") == kind
    assert sampling_pb2.ConstraintMode.Name(message.mode).lower().endswith(constraint.mode)
    assert message.max_attempts == (constraint.max_attempts or 0)
    assert message.num_particles == (constraint.num_particles or 0)


@pytest.mark.parametrize("constraint", [Constraint(), Constraint(regex="a", choices=("a",))])
def test_a_constraint_is_of_one_kind(constraint: Constraint) -> None:
    with pytest.raises(InvalidRequest, match="one of regex, choices and allowed_characters"):
        constraint_message(constraint)
