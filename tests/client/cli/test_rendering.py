"""What a person sees, without a server."""

import math

import pytest

from charlm_client.cli.rendering import colored, printable, surprisal_style, token_label
from charlm_client.types import TopToken

BITS = -math.log(2)


def token(data: bytes) -> TopToken:
    return TopToken(token_id=1, data=data, text=data.decode(errors="replace"), logprob=BITS)


@pytest.mark.parametrize(
    "text", ["\x1b[2J", "a\rb", "\x07", "\x9b31m", "\u202e", "\u2028", "\x7f", "\ue000"]
)
def test_control_characters_are_escaped(text: str) -> None:
    assert all(character.isprintable() for character in printable(text))


@pytest.mark.parametrize(
    "text", ["plain\n\ttext", "é 한국어", "👩\u200d👧", "می\u200cخواهم", "❤\ufe0f"]
)
def test_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_each_token_has_the_color_of_its_surprisal() -> None:
    rendered = colored("abc", [0, 1, 2], [0.5 * BITS, 3 * BITS, 9 * BITS])

    assert rendered.plain == "abc"
    assert [(span.start, span.end, span.style) for span in rendered.spans] == [
        (0, 1, surprisal_style(0.5)),
        (1, 2, surprisal_style(3)),
        (2, 3, surprisal_style(9)),
    ]


def test_the_bytes_of_a_character_are_shown_together() -> None:
    """A character's surprisal is the sum of its tokens'."""
    rendered = colored("é!", [0, 0, 1], [0.5 * BITS, 2.5 * BITS, 0.5 * BITS])

    assert rendered.plain == "é!"
    assert [span.style for span in rendered.spans] == [surprisal_style(3), surprisal_style(0.5)]


def test_a_token_of_several_characters_is_one_piece() -> None:
    rendered = colored("the\n", [0, 3], [BITS, BITS])

    assert rendered.plain == "the↵\n"
    assert len(rendered.spans) == 2


@pytest.mark.parametrize(
    ("data", "label"),
    [
        (b"", "end of text"),
        (b"a", "'a'"),
        (b" ", "' '"),
        (b"\n", "'↵'"),
        ("한".encode(), "'한'"),
        (b"\xed", "bytes ed"),
        (b"\x1b", "'\u241b'"),
    ],
)
def test_a_token_has_a_label_on_one_line(data: bytes, label: str) -> None:
    assert token_label(token(data)) == label
