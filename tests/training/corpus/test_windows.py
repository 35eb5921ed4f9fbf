"""Windows are consecutive, deterministic, and can be reached from anywhere."""

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch

from charlm_training.corpus.token_file import Ids, positions_of, write_token_file
from charlm_training.corpus.windows import (
    NO_TARGET,
    BatchShape,
    DocumentWindows,
    Position,
    StreamWindows,
    Window,
    Windows,
)

START = Position()
STREAM = np.arange(101, dtype=np.uint16)
LONG_STREAM = np.arange(6_401, dtype=np.uint16)
SHAPE = BatchShape(batch_size=4, length=5, seed=7)
# Documents of 1, 2, 3 and so on characters; character k stands only in document k.
LINES = np.concatenate([[0], *([*[k] * k, 0] for k in range(1, 14))]).astype(np.uint16)


def first(windows: Windows, count: int, position: Position = START) -> list[Window]:
    return list(islice(windows.starting_at(position), count))


def assert_same(ours: Window, theirs: Window) -> None:
    torch.testing.assert_close(ours.input_BT, theirs.input_BT)
    torch.testing.assert_close(ours.target_BT, theirs.target_BT)
    assert ours.is_fresh_B.tolist() == theirs.is_fresh_B.tolist()
    assert ours.after == theirs.after


def test_targets_are_the_inputs_one_token_later() -> None:
    for window in first(StreamWindows(STREAM, SHAPE), 12):
        torch.testing.assert_close(window.target_BT, (window.input_BT + 1) % len(STREAM))


def test_a_row_continues_the_same_row_of_the_window_before() -> None:
    before, *rest = first(StreamWindows(STREAM, SHAPE), 5)

    for window in rest:
        assert not window.is_fresh_B.any()
        torch.testing.assert_close(window.input_BT[:, 0], before.target_BT[:, -1])
        before = window


def test_an_epoch_reads_no_token_twice() -> None:
    windows = StreamWindows(STREAM, SHAPE)

    seen = torch.cat([window.input_BT.flatten() for window in first(windows, 5)])

    assert len(seen) == windows.tokens_per_epoch == len(set(seen.tolist()))


def test_each_epoch_starts_anew_at_another_phase() -> None:
    windows = first(StreamWindows(STREAM, SHAPE), 50)

    starts = [int(window.input_BT[0, 0]) for window in windows if window.is_fresh_B.all()]

    assert [bool(window.is_fresh_B.any()) for window in windows] == [k % 5 == 0 for k in range(50)]
    assert len(set(starts)) > 5


def test_a_share_of_the_rows_starts_fresh_and_workers_agree_which() -> None:
    shape = BatchShape(batch_size=64, length=1, seed=7, fresh_share=0.25)
    workers = [replace(shape, rank=rank, num_ranks=2) for rank in range(2)]

    whole, left, right = (
        [window.is_fresh_B.tolist() for window in first(StreamWindows(LONG_STREAM, s), 50)]
        for s in (shape, *workers)
    )

    assert whole == [a + b for a, b in zip(left, right, strict=True)]
    assert 0.2 < np.mean(whole[1:]) < 0.3


@pytest.mark.parametrize("kind", [StreamWindows, DocumentWindows])
def test_the_same_seed_gives_the_same_windows(
    kind: type[StreamWindows] | type[DocumentWindows],
) -> None:
    ids = STREAM if kind is StreamWindows else LINES

    for ours, theirs in zip(first(kind(ids, SHAPE), 20), first(kind(ids, SHAPE), 20), strict=True):
        assert_same(ours, theirs)


@pytest.mark.parametrize("kind", [StreamWindows, DocumentWindows])
def test_any_position_is_reached_without_replaying(
    kind: type[StreamWindows] | type[DocumentWindows],
) -> None:
    ids = STREAM if kind is StreamWindows else LINES
    whole = first(kind(ids, SHAPE), 30)

    for index in (0, 1, 6, 19):
        resumed = first(kind(ids, SHAPE), 5, whole[index].after)

        for ours, theirs in zip(resumed, whole[index + 1 : index + 6], strict=True):
            assert_same(ours, theirs)


@pytest.mark.parametrize("kind", [StreamWindows, DocumentWindows])
def test_workers_share_the_rows_of_one_global_batch(
    kind: type[StreamWindows] | type[DocumentWindows],
) -> None:
    ids = STREAM if kind is StreamWindows else LINES
    workers = [
        first(kind(ids, BatchShape(batch_size=4, length=20, seed=7, rank=rank, num_ranks=2)), 3)
        for rank in range(2)
    ]
    alone = first(kind(ids, BatchShape(batch_size=4, length=20, seed=7)), 3)

    for whole, left, right in zip(alone, *workers, strict=True):
        shared = [row[row != NO_TARGET] for half in (left, right) for row in half.target_BT]
        for row, part in zip(whole.target_BT, shared, strict=True):
            torch.testing.assert_close(row[row != NO_TARGET], part)


def test_every_row_is_one_document_from_start_to_end() -> None:
    windows = first(DocumentWindows(LINES, BatchShape(batch_size=3, length=50, seed=1)), 4)

    for window in windows:
        assert window.is_fresh_B.all()
        for inputs, targets in zip(window.input_BT, window.target_BT, strict=True):
            document = targets[targets != NO_TARGET].tolist()
            character = document[0]
            assert document == [character] * character + [0]
            assert inputs[: len(document)].tolist() == [0] + [character] * character


def test_an_epoch_of_documents_holds_each_once() -> None:
    windows = first(DocumentWindows(LINES, BatchShape(batch_size=3, length=50, seed=1)), 4)

    characters = [int(row[0]) for window in windows for row in window.target_BT]

    assert len(characters) == 12 == len(set(characters))


def test_a_document_longer_than_a_window_continues_in_the_next() -> None:
    windows = first(DocumentWindows(LINES, BatchShape(batch_size=13, length=4, seed=1)), 4)

    assert [bool(window.is_fresh_B.all()) for window in windows] == [True, False, False, False]
    joined = torch.cat([window.target_BT for window in windows], dim=1)
    lengths = sorted((joined != NO_TARGET).sum(dim=1).tolist())
    assert lengths == list(range(2, 15))


def test_a_token_file_is_mapped_and_not_read(tmp_path: Path) -> None:
    """Far more tokens than one piece, and only the touched pages are in memory."""
    piece = np.arange(1 << 16, dtype=np.uint16)

    ids = write_token_file(tmp_path / "big", (piece for _ in range(64)), vocab_size=1 << 16)

    assert isinstance(ids, np.memmap)
    assert len(ids) == 64 << 16
    windows = StreamWindows(ids, BatchShape(batch_size=8, length=16, seed=3))
    window = first(windows, 1, Position(0, 1000))[0]
    torch.testing.assert_close(window.target_BT, (window.input_BT + 1) % (1 << 16))


def test_large_vocabularies_get_wider_ids(tmp_path: Path) -> None:
    pieces: list[Ids] = [np.array([1, 70_000], dtype=np.uint32)]

    ids = write_token_file(tmp_path / "wide", pieces, vocab_size=70_001)

    assert ids.tolist() == [1, 70_000]


def test_positions_are_found_across_chunks() -> None:
    assert positions_of(LINES, 0, chunk=7).tolist() == np.flatnonzero(LINES == 0).tolist()
