"""Constraints against Python's own `re`, over every kind of alphabet."""

import re
import warnings
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from charlm_model.constraints.constraint import (
    Constraint,
    from_allowed_characters,
    from_choices,
    from_regex,
)
from charlm_model.constraints.dfa import DEAD
from charlm_model.errors import InvalidConstraint
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary

ALPHABET = "abB1_ é가나\n"
PIECES = SentencePieceVocabulary.train(["가나 abba é ab ba 가나다 " * 40] * 4, 300)
VOCABULARIES: list[Vocabulary] = [CharVocabulary.from_text(ALPHABET), ByteVocabulary(), PIECES]
CHARACTERS = [*"abB1_é가", ".", r"\w", r"\d", r"\s", r"\W", "[a-z]", "[^a]", "[가-힣é]", r"\x61"]

patterns = st.recursive(
    st.sampled_from(CHARACTERS),
    lambda inner: st.one_of(
        st.lists(inner, min_size=0, max_size=3).map("".join),
        st.tuples(inner, inner).map(lambda pair: f"(?:{pair[0]}|{pair[1]})"),
        st.tuples(
            inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}", "{,2}", "{2,}", "*?"])
        ).map(lambda pair: f"({pair[0]}){pair[1]}"),
    ),
    max_leaves=6,
)
texts = st.text(alphabet=ALPHABET, max_size=6)


def token_bytes(vocabulary: Vocabulary) -> list[bytes]:
    return [vocabulary.token_bytes(token_id) for token_id in range(vocabulary.size)]


def accepts(constraint: Constraint, ids: list[int]) -> bool:
    state = constraint.state_after(ids)
    return state != DEAD and constraint.is_accepting(state)


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda each: each.kind)
@settings(max_examples=150, deadline=None)
@given(pattern=patterns, flags=st.sampled_from(["", "(?i)", "(?s)", "(?a)", "(?is)"]), text=texts)
@example(pattern="(?:)|a{", flags="", text="a{")
@example(pattern="^ab$", flags="", text="ab")
@example(pattern=r"[]\]a-]+", flags="", text="a")
def test_an_output_is_accepted_exactly_where_python_matches(
    vocabulary: Vocabulary, pattern: str, flags: str, text: str
) -> None:
    try:
        constraint = from_regex(flags + pattern, token_bytes(vocabulary))
    except InvalidConstraint:
        assume(False)
        raise
    assume("{" not in text or vocabulary.kind != "char")

    matches = re.fullmatch(flags + pattern, text) is not None

    assert accepts(constraint, vocabulary.encode(text)) == matches


@pytest.mark.slow
@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda each: each.kind)
@settings(max_examples=60, deadline=None)
@given(pattern=patterns, draws=st.lists(st.integers(0, 1 << 30), max_size=5))
def test_an_end_is_reached_within_the_missing_tokens(
    vocabulary: Vocabulary, pattern: str, draws: list[int]
) -> None:
    try:
        constraint = from_regex(pattern, token_bytes(vocabulary))
    except InvalidConstraint:
        assume(False)
        raise
    state, ids = constraint.start, []
    for number in draws:
        allowed = np.flatnonzero(constraint.row(state).next_V[1:] != DEAD) + 1
        if not len(allowed):
            break
        ids.append(int(allowed[number % len(allowed)]))
        state = constraint.state_after(ids[-1:], state)

    num_ids, num_missing = len(ids), constraint.missing(state)
    while constraint.missing(state):
        nearest = 1 + int(constraint.row(state).missing_V[1:].argmin())
        ids.append(nearest)
        state = constraint.state_after([nearest], state)

    assert len(ids) - num_ids <= num_missing
    spelled = b"".join(map(vocabulary.token_bytes, ids)).decode()
    assert re.fullmatch(pattern, spelled) is not None


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda each: each.kind)
def test_no_token_is_allowed_from_which_no_end_is_reached(vocabulary: Vocabulary) -> None:
    constraint = from_regex("(a[^\\s\\S]|b)+가", token_bytes(vocabulary))

    allowed = np.flatnonzero(constraint.row(constraint.start).next_V[1:] != DEAD) + 1

    assert {vocabulary.token_bytes(int(token))[:1] for token in allowed} == {b"b"}


@pytest.mark.parametrize("vocabulary", VOCABULARIES, ids=lambda each: each.kind)
def test_choices_are_the_texts_and_nothing_else(vocabulary: Vocabulary) -> None:
    constraint = from_choices(["ab", "abb", "가나"], token_bytes(vocabulary))

    assert [accepts(constraint, vocabulary.encode(text)) for text in ("ab", "abb", "가나")] == [
        True,
        True,
        True,
    ]
    assert not any(accepts(constraint, vocabulary.encode(text)) for text in ("", "a", "가", "abba"))
    assert not constraint.is_complete(constraint.state_after(vocabulary.encode("ab")))
    assert constraint.is_complete(constraint.state_after(vocabulary.encode("가나")))


@given(text=texts, allowed=st.text(alphabet=ALPHABET, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_allowed_characters_are_a_set(text: str, allowed: str) -> None:
    vocabulary = VOCABULARIES[0]
    constraint = from_allowed_characters(allowed, token_bytes(vocabulary))

    assert accepts(constraint, vocabulary.encode(text)) == (set(text) <= set(allowed))


def test_bytes_that_are_no_character_are_never_allowed() -> None:
    vocabulary = VOCABULARIES[1]
    constraint = from_regex(".+", token_bytes(vocabulary))

    for data in (
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xf0\x80",
    ):
        assert constraint.state_after(vocabulary.encode_bytes(data)) == DEAD
    for text in ("\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\U0010ffff"):
        assert accepts(constraint, vocabulary.encode(text))


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("(a|b)*a(a|b){20}", "at most 10000 states"),
        ("((a{100}){100}){100}", "at most 50000 characters"),
        ("((){60000}){60000}", "at most 100000 parts"),
        ("(" * 70 + "a" + ")" * 70, "without groups more than 60 deep"),
        ("a" * 10_001, "at most 10000 characters long"),
        ("a(", "Python's re accepts"),
        (r"\ba", "word boundaries"),
        (r"(a)\1", r"back-references such as \1"),
        ("(?=a)b", "look-around"),
        ("(?x)a", "without flags other than"),
        ("a++", "possessive"),
        ("a^b", "anchors"),
        ("", "not empty"),
        ("ω", "of the model's vocabulary"),
        ("[^\\s\\S]", "of the model's vocabulary"),
        pytest.param(
            "".join(f"[a{chr(0x4E00 + number)}]" for number in range(101)),
            "without more than 100 different classes",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_unsupported_pattern_is_refused_with_the_reason(pattern: str, words: str) -> None:
    with warnings.catch_warnings(), pytest.raises(InvalidConstraint, match=re.escape(words)):
        from_regex(pattern, token_bytes(VOCABULARIES[0]))


def test_choices_too_long_to_write_out_are_refused_before_any_work() -> None:
    with pytest.raises(InvalidConstraint, match="at most 50000 characters long in all"):
        from_choices(["a" * 60_000], token_bytes(VOCABULARIES[0]))


def test_many_distinct_characters_are_bounded_like_states() -> None:
    characters = "".join(map(chr, range(0x4E00, 0x4E00 + 3000)))
    vocabulary = CharVocabulary(characters)

    with pytest.raises(InvalidConstraint, match="at most 4000000 entries"):
        from_regex(characters, token_bytes(vocabulary))


def test_evicted_rows_are_computed_again_alike() -> None:
    constraint = from_regex("(a{50}){20}", token_bytes(VOCABULARIES[1]))
    first = constraint.row(0)

    end = constraint.state_after(VOCABULARIES[1].encode("a" * 1000))

    assert constraint.is_complete(end)
    np.testing.assert_array_equal(constraint.row(0).next_V, first.next_V)


def test_missing_counts_pieces_of_several_characters() -> None:
    text = "가나 abba"
    ids = PIECES.encode(text)
    constraint = from_choices([text], token_bytes(PIECES))

    assert constraint.missing(constraint.start) <= len(ids) < len(text.encode())
    states = [constraint.state_after(ids[:at]) for at in range(len(ids) + 1)]
    assert constraint.missing(states[-1]) == 0
    assert all(
        constraint.missing(here) <= 1 + constraint.missing(there)
        for here, there in pairwise(states)
    )
