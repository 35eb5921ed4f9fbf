"""Sizes that a family would ignore, or that no model can have, are refused by their flags."""

import pytest

from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig
from charlm_model.families.registry import build
from charlm_training.errors import InvalidOption
from charlm_training.planning.options import FAMILIES, SizeOptions
from charlm_training.planning.size_flags import UNUSED, named_as_flags, refuse_unused


@pytest.mark.parametrize(
    ("family", "name", "said"),
    [
        ("lstm", "num_heads", r"--num-heads is 4, but --family lstm .*\(transformer\)"),
        ("gru", "context_length", r"--context-length is 4, but .*\(ngram, transformer\)"),
        ("transformer", "embedding_size", r"--embedding-size is 4, .*\(rnn, gru, lstm\)"),
        ("ngram", "hidden_size", r"--hidden-size is 4, but --family ngram has no use for it"),
        ("ngram", "kernel_size", r"--kernel-size is 4, but --family ngram has no use for it"),
    ],
)
def test_a_size_that_a_family_would_ignore_is_refused(family: str, name: str, said: str) -> None:
    with pytest.raises(InvalidOption, match=said):
        refuse_unused(family, SizeOptions(**{name: 4}))


def test_the_order_of_an_ngram_is_a_size_it_uses() -> None:
    refuse_unused("ngram", SizeOptions(context_length=4))
    refuse_unused("transformer", SizeOptions(num_heads=4, context_length=4, dropout=0.1))
    refuse_unused("lstm", SizeOptions(hidden_size=8, embedding_size=8, batch_size=2))


def test_every_family_says_what_it_has_no_use_for() -> None:
    assert set(UNUSED) == set(FAMILIES)


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"dropout": 1.5}, r"^--dropout is 1.5; it must be at least 0 and below 1\.$"),
        ({"hidden_size": 0}, "^--hidden-size is 0; it must be a whole number from 1 to"),
        ({"kernel_size": 1000}, "^--kernel-size is 1000; it must be a whole number from"),
        (
            {"hidden_size": 33, "num_heads": 4},
            r"^--hidden-size is 33; it must be a multiple of 4 \* --num-heads = 16\.$",
        ),
    ],
)
def test_a_size_that_no_model_can_have_is_named_by_its_flag(
    sizes: dict[str, float], said: str
) -> None:
    with pytest.raises(InvalidOption, match=said), named_as_flags():
        build(ModelConfig(**{"family": "transformer", "vocab_size": 5, **sizes}))


def test_what_no_flag_decides_keeps_its_name() -> None:
    with pytest.raises(InvalidConfig, match="vocab_size is 1; it must be 2"), named_as_flags():
        raise InvalidConfig("vocab_size is 1; it must be 2.")
