"""Random numbers agree with the published vectors, and depend on their counter alone."""

import numpy as np
import pytest
from numpy.typing import NDArray

from charlm_model.sampling.philox import philox4x32, uniforms


def column(*values: int) -> NDArray[np.uint64]:
    return np.array(values, np.uint64)[:, None]


def uniform(seed: int, output_index: int, position: int) -> float:
    words = (np.array([value], np.uint64) for value in (seed, output_index, position))
    return float(uniforms(*words)[0])


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        (
            (0xFFFFFFFF,) * 4,
            (0xFFFFFFFF,) * 2,
            (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
        ),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_answers(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    """Source: the known-answer vectors of Random123."""
    result = philox4x32(column(*counter), column(*key))

    assert tuple(int(word[0]) for word in result) == expected


def test_a_uniform_is_the_top_53_bits_of_two_words() -> None:
    """With a zero counter and key these are the first published answer."""
    assert uniform(0, 0, 0) == ((0x6627E8D5 << 32 | 0xE169C58D) >> 11) / 2**53


def test_uniforms_do_not_depend_on_the_batch() -> None:
    seeds = np.arange(100, dtype=np.uint64) * np.uint64(2**57)
    together = uniforms(seeds, seeds, seeds)

    alone = [uniforms(*[seeds[i : i + 1]] * 3)[0] for i in range(100)]

    assert together.tolist() == alone
    assert len(set(alone)) == 100
    assert together.min() >= 0
    assert together.max() < 1


def test_every_part_of_the_counter_matters() -> None:
    """All 64 bits of seed and position, and the output index; chance of equal numbers: 2^-53."""
    largest = 2**64 - 1
    parts = [(s, o, p) for s in (0, 1, 2**32, largest) for o in (0, 1) for p in (0, 1, 2**32)]

    assert len({uniform(*each) for each in parts}) == len(parts)


def test_uniforms_are_uniform() -> None:
    """By chance, chi-square with 255 degrees of freedom exceeds 347.7 once in 10,000 seeds."""
    count, zeros = 100_000, np.zeros(100_000, np.uint64)
    u = uniforms(zeros + np.uint64(11), zeros, np.arange(count, dtype=np.uint64))

    observed = np.bincount((u * 256).astype(np.int64), minlength=256)

    assert ((observed - count / 256) ** 2 / (count / 256)).sum() < 347.7
