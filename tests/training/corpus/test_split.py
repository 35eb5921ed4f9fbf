"""The first part trains, the last part validates, and nothing is lost between them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm_training.corpus.split import between, split_characters, split_lines, whole_lines
from charlm_training.errors import CorpusTooSmall, InvalidOption

chunkings = st.lists(st.text(alphabet="ab\n", max_size=9), max_size=9)


def test_nine_tenths_train_and_the_last_tenth_validates() -> None:
    split = split_characters(1_115_394, 0.1)

    assert split.boundary == 1_003_854


@given(chunkings, st.integers(0, 90), st.integers(0, 90))
def test_a_part_of_the_chunks_is_the_slice_of_the_text(
    chunks: list[str], start: int, stop: int
) -> None:
    assert "".join(between(chunks, start, stop)) == "".join(chunks)[start:stop]


@given(chunkings)
def test_no_line_is_torn_by_a_chunk(chunks: list[str]) -> None:
    lines = [line for batch in whole_lines(chunks) for line in batch]

    assert lines == [line for line in "".join(chunks).split("\n") if line]


@given(st.lists(st.text(alphabet="ab", max_size=5), min_size=12), st.integers(1, 9))
def test_a_split_of_lines_falls_between_two_lines(lines: list[str], chunk: int) -> None:
    text = "\n".join([*lines, "end"])
    chunks = [text[at : at + chunk] for at in range(0, len(text), chunk)]

    split = split_lines(chunks, split_characters(len(text), 0.5))

    assert text[split.boundary - 1] == "\n"
    assert split.boundary >= split_characters(len(text), 0.5).boundary
    assert "".join(split.train(chunks)) + "".join(split.validation(chunks)) == text


def test_a_text_without_lines_cannot_be_split_by_lines() -> None:
    text = "one long line without an end"

    with pytest.raises(CorpusTooSmall, match="--unit stream"):
        split_lines([text], split_characters(len(text), 0.1))


@pytest.mark.parametrize("num_characters", [0, 1, 9])
def test_a_corpus_of_a_few_characters_is_refused_in_a_sentence(num_characters: int) -> None:
    with pytest.raises(CorpusTooSmall, match=f"has {num_characters} character.* at least 10"):
        split_characters(num_characters, 0.1)


def test_the_smallest_corpus_leaves_something_to_validate_on() -> None:
    split = split_characters(10, 0.1)

    assert split.boundary == 8


@pytest.mark.parametrize("fraction", [0.0, -1.0, 0.6, float("nan")])
def test_a_validation_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(InvalidOption, match="--validation-fraction"):
        split_characters(1000, fraction)
