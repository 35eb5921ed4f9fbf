"""What a text is to a model, in a terminal."""

import json

import pytest

from tests.e2e.test_command import charlm

pytestmark = pytest.mark.slow


def rows(printed: str) -> list[list[str]]:
    return [line.split("\t") for line in printed.splitlines()]


def test_tokens_are_shown_with_their_places_and_come_back(server_address: str) -> None:
    asking = ("--server", server_address, "--model", "bytes")

    heading, *tokens = rows(charlm("encode", "né\n", *asking).stdout)
    ids = [token_id for _, token_id, _ in tokens]
    back = charlm("decode", *ids, *asking)
    as_json = json.loads(charlm("decode", *ids, "--json", *asking).stdout)

    assert heading == ["offset", "token_id", "text"]
    assert [offset for offset, _, _ in tokens] == ["0", "1", "1", "2"]
    assert [text for _, _, text in tokens] == ['"n"', "bytes c3", "bytes a9", '"\\n"']
    assert back.stdout == "né\n\n"
    assert as_json["text"] == "né\n"


def test_a_vocabulary_is_listed_by_id(server_address: str) -> None:
    heading, end, *others = rows(
        charlm("vocabulary", "--server", server_address, "--model", "fox").stdout
    )

    assert (heading, end) == (["token_id", "text"], ["0", "end of text"])
    assert [int(token_id) for token_id, _ in others] == list(range(1, len(others) + 1))
    assert [json.loads(text) for _, text in others if text in ('"T"', '"x"')] == ["T", "x"]


def test_text_and_ids_outside_the_vocabulary_are_refused(server_address: str) -> None:
    asking = ("--server", server_address, "--model", "fox")

    for words in (("encode", "é"), ("decode", "999")):
        refused = charlm(*words, *asking)
        assert refused.returncode == 1
        assert len(refused.stderr.splitlines()) == 1
    assert charlm("decode", "-1", *asking).returncode == 2
