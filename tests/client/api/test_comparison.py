"""Comparisons: what is asked arrives, what is answered comes back, and the command shows it."""

import pytest
from fake_server import Script

from charlm.v1 import context_pb2
from charlm_client import Client, InvalidRequest, UnknownCharacter


async def test_texts_models_and_priors_arrive_and_a_row_for_each_text_comes_back(
    client: Client, script: Script
) -> None:
    found = await client.compare(
        ["x", "yy"], models=["a", "models/b"], priors=[0.1, 0.9], replace_unknown=True
    )

    (request,) = script.requests
    assert list(request.models) == ["models/a", "models/b"]
    assert (list(request.texts), list(request.priors)) == (["x", "yy"], [0.1, 0.9])
    assert request.unknown_characters == context_pb2.UNKNOWN_CHARACTER_POLICY_REPLACE
    assert [each.text for each in found] == ["x", "yy"]
    assert [score.model for score in found[0].scores] == ["models/a", "models/b"]
    assert [score.posterior for score in found[1].scores] == [0.25, 0.75]
    assert [score.total_logprob for score in found[1].scores] == [-3.0, -2.0]
    assert found[1].best.bits_per_byte == 2.0


async def test_no_priors_are_sent_unless_given(client: Client, script: Script) -> None:
    await client.compare(["x"], models=["a", "b"])

    assert not script.requests[0].priors


async def test_one_string_is_no_list_of_texts(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="texts is one text"):
        await client.compare("abc", models=["a"])
    with pytest.raises(InvalidRequest, match="models is one text"):
        await client.compare(["abc"], models="a")


async def test_text_that_is_not_unicode_is_named(client: Client) -> None:
    with pytest.raises(UnknownCharacter, match=r"texts\[1\]"):
        await client.compare(["a", "\udcff"], models=["a", "b"])
