"""Copies are found exactly: against brute force, and in a text with a planted one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.diagnose.memorization import finding, overlaps_with, samples
from charlm_training.diagnose.suffix_automaton import SuffixAutomaton
from charlm_training.run.ngram_baseline import fit_ngram

FEW = st.text(alphabet="ab", max_size=30)
SOME = st.text(alphabet="abcd ", min_size=1, max_size=60)


def longest_suffix(text: str, other: str, end: int) -> int:
    return next(n for n in range(end, -1, -1) if text[end - n : end] in other)


@given(FEW | SOME, FEW | SOME)
def test_longest_suffixes_are_those_of_brute_force(text: str, other: str) -> None:
    found = SuffixAutomaton(text).longest_suffixes(other)

    assert found == [longest_suffix(text, other, end) for end in range(1, len(text) + 1)]


@given(SOME, SOME, st.integers(1, 8))
def test_shares_count_every_character_inside_a_copy(text: str, train: str, length: int) -> None:
    (overlap,) = overlaps_with(train, {"model": [text]}).values()

    inside = {
        place
        for start in range(len(text) - length + 1)
        if text[start : start + length] in train
        for place in range(start, start + length)
    }
    assert overlap.share(length) == pytest.approx(len(inside) / len(text))


@given(st.lists(SOME, min_size=1, max_size=4), SOME)
def test_no_copy_crosses_from_one_sample_to_the_next(texts: list[str], train: str) -> None:
    together = overlaps_with(train, {"a": texts[:1], "b": texts[1:] or ["a"]})["a"]
    (alone,) = overlaps_with(train, {"a": texts[:1]}).values()

    assert together.suffixes == alone.suffixes


def test_a_planted_copy_is_found_and_quoted() -> None:
    secret = "the quick brown fox jumps over the lazy dog, and then it sleeps all day"
    overlaps = overlaps_with(
        f"0123 {secret} 4567", {"lstm": ["xx", f"abc{secret}xyz"], "unseen text": ["0123 8"]}
    )

    assert overlaps["lstm"].longest == len(secret)
    assert overlaps["lstm"].longest_text == secret
    said = finding(overlaps)
    assert said.startswith(f"The longest copy that lstm wrote has {len(secret)} characters")
    assert "more than in unseen text" in said
    assert "longest 5" in said


def test_what_copies_no_more_than_text_does_is_not_accused() -> None:
    overlaps = overlaps_with("abcdef", {"lstm": ["abc"], "unseen text": ["def"]})

    assert "no more than in unseen text" in finding(overlaps)


def test_one_long_copy_counts_as_copying() -> None:
    train = "".join(f"{n * 7919 % 1000} and so on, " for n in range(30))
    overlaps = overlaps_with(train, {"lstm": [train[40:75]], "unseen text": ["and so on, 7 or 8"]})

    assert "more than in unseen text" in finding(overlaps)
    assert "no more" not in finding(overlaps)


@pytest.mark.slow
def test_a_model_that_learned_its_text_by_heart_is_caught(read: Any) -> None:
    text = "".join(f"{n * 7919 % 1000} and so it goes on and on. " for n in range(100))
    data = read(text)
    model = fit_ngram(data, order=12)
    subject = DiagnosedModel(
        name="ngram", model=model, vocabulary=data.vocabulary, validation=data.validation
    )

    (overlap,) = overlaps_with(text, {"ngram": samples(subject, 0)[:2]}).values()

    assert overlap.longest > 25
