"""The compressed format: any pieces, every flipped bit detected, at most one frame lost."""

from binascii import crc32
from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm_model.compression import frames
from charlm_model.compression.frames import (
    FRAME_BYTES,
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    MAGIC,
    Damage,
    Deframer,
    Frame,
    Header,
)

payloads = st.lists(st.binary(max_size=40).map(lambda data: data + bytes(-len(data) % 4)))


def stream_of(payloads: list[bytes]) -> bytes:
    last = len(payloads)
    frames = [Frame(n, 5, 7, payload, False) for n, payload in enumerate(payloads)]
    return b"".join(frame.to_bytes() for frame in [*frames, Frame(last, 0, 0, b"", True)])


def parsed(pieces: Iterable[bytes]) -> list[Frame | Damage]:
    deframer = Deframer()
    found = [each for piece in pieces for each in deframer.feed(piece)]
    return [*found, *deframer.finish()]


def good(found: list[Frame | Damage]) -> dict[int, bytes]:
    return {each.number: each.payload for each in found if isinstance(each, Frame)}


def damaged(found: list[Frame | Damage]) -> set[int]:
    return {
        number
        for each in found
        if isinstance(each, Damage)
        for number in range(each.number, each.number + each.count)
    }


def test_a_damaged_header_is_detected() -> None:
    header = Header.of("ab" * 32, "torch-1/x86")

    data = header.to_bytes()

    assert len(data) == HEADER_BYTES
    assert Header.from_bytes(data) == header
    assert Header.from_bytes(data[:-1]) is None
    assert all(Header.from_bytes(flipped(data, bit)) is None for bit in range(8 * len(data)))


def test_headers_tell_models_and_arithmetics_apart() -> None:
    header = Header.of("ab" * 32, "a")

    assert header.model != Header.of("ac" * 32, "a").model
    assert header.numerics != Header.of("ab" * 32, "b").numerics
    assert Header.from_bytes(header.to_bytes()) == header


def test_a_header_of_unprintable_names_is_none() -> None:
    data = MAGIC + bytes(8) + b"\x1b[2J" + bytes(16)

    assert Header.from_bytes(data + crc32(data).to_bytes(4, "little")) is None


def test_a_long_name_of_an_arithmetic_is_cut_and_stays_its_own() -> None:
    names = [f"charlm-3/x86_64/torch-2.13.0/NVIDIA-{number}" for number in range(50)]

    headers = [Header.of("ab" * 32, name) for name in names]

    assert len({header.numerics for header in headers}) == 50
    assert all(Header.from_bytes(header.to_bytes()) == header for header in headers)


@given(payloads=payloads, cuts=st.lists(st.integers(0, 300)))
def test_a_stream_may_arrive_in_any_pieces(payloads: list[bytes], cuts: list[int]) -> None:
    data = stream_of(payloads)
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]

    found = parsed(data[a:b] for a, b in pairwise(places))

    assert damaged(found) == set()
    assert good(found) == dict(enumerate([*payloads, b""]))
    offsets = [each.offset - HEADER_BYTES for each in found]
    assert all(
        data[at + FRAME_HEAD_BYTES :].startswith(each.payload)
        for at, each in zip(offsets, found, strict=True)
        if isinstance(each, Frame)
    )


@given(payloads=st.lists(st.binary(min_size=8, max_size=8), min_size=2, max_size=4), data=st.data())
def test_a_flipped_bit_costs_one_frame(payloads: list[bytes], data: st.DataObject) -> None:
    stream = stream_of(payloads)
    bit = data.draw(st.integers(0, 8 * len(stream) - 1))
    size = FRAME_HEAD_BYTES + 8
    hit = min(bit // 8 // size, len(payloads))

    found = parsed([flipped(stream, bit)])

    assert damaged(found) == {hit}
    assert set(good(found)) == set(range(len(payloads) + 1)) - {hit}
    (damage,) = [each for each in found if isinstance(each, Damage)]
    assert damage.offset == HEADER_BYTES + hit * size


@given(payloads=payloads, data=st.data())
def test_a_truncated_stream_is_reported(payloads: list[bytes], data: st.DataObject) -> None:
    stream = stream_of(payloads)
    length = data.draw(st.integers(0, len(stream) - 1))

    found = parsed([stream[:length]])

    assert damaged(found) == {len(good(found))}


@given(payloads=payloads, extra=st.binary(min_size=1, max_size=30))
def test_data_after_the_last_frame_is_damage(payloads: list[bytes], extra: bytes) -> None:
    found = parsed([stream_of(payloads) + extra])

    assert set(good(found)) == set(range(len(payloads) + 1))
    assert found[-1] == Damage(len(payloads) + 1, 0, HEADER_BYTES + len(stream_of(payloads)))


@given(data=st.lists(st.binary(max_size=100)))
def test_noise_is_never_a_frame(data: list[bytes]) -> None:
    found = parsed(data)

    assert good(found) == {}
    assert damaged(found) == {0}


def test_a_missing_frame_is_reported() -> None:
    frames = [Frame(number, 1, 1, b"abcd", number == 3) for number in (0, 1, 3)]

    found = parsed([b"".join(frame.to_bytes() for frame in frames)])

    assert damaged(found) == {2}
    assert set(good(found)) == {0, 1, 3}


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@given(payloads=payloads.filter(lambda each: len(each) >= 2), data=st.data())
def test_bytes_put_in_or_taken_out_cost_no_frame_but_their_own(
    payloads: list[bytes], data: st.DataObject
) -> None:
    frames = [Frame(number, 5, 7, each, False) for number, each in enumerate(payloads)]
    stream = (
        b"".join(frame.to_bytes() for frame in frames)
        + Frame(len(payloads), 0, 0, b"", True).to_bytes()
    )
    at = data.draw(st.integers(0, len(frames[0].to_bytes()) - 1))
    num = data.draw(st.integers(1, 30))
    is_cut = data.draw(st.booleans())
    num = min(num, len(frames[0].to_bytes()) - at)
    changed = stream[:at] + (stream[at + num :] if is_cut else b"\xc5" * num + stream[at:])

    found = parsed([changed])

    assert set(good(found)) >= set(range(1, len(payloads) + 1))
    assert damaged(found) == set(range(len(payloads) + 1)) - set(good(found))


def test_a_gap_is_one_range() -> None:
    frames = [Frame(0, 1, 1, b"abcd", False), Frame(60_000, 1, 1, b"abcd", True)]

    found = parsed([b"".join(frame.to_bytes() for frame in frames)])

    assert [each for each in found if isinstance(each, Damage)] == [
        Damage(1, 59_999, HEADER_BYTES + frames[0].num_bytes)
    ]


def test_a_frame_cannot_claim_more_tokens_than_an_encoder_writes() -> None:
    found = parsed([Frame(0, FRAME_BYTES + 1, 1, b"abcd", True).to_bytes()])

    assert good(found) == {}


def hostile(num_bytes: int) -> bytes:
    """Heads that are whole, one in another, each with the length of the longest payload."""
    head = Frame(0, 1, 1, bytes(4 * 0xFFFF), False).to_bytes()[:FRAME_HEAD_BYTES]
    return head * (num_bytes // len(head))


@pytest.mark.parametrize("stream", [b"\xc5" * (1 << 18), hostile(1 << 18)], ids=["marks", "heads"])
def test_the_search_after_damage_is_bounded(stream: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    checked = []
    monkeypatch.setattr(frames, "crc32", lambda data, start=0: checked.append(len(data)) or 0)
    monkeypatch.setattr(frames, "crc_hqx", lambda data, start: checked.append(len(data)) or 1)

    found = parsed([stream])

    assert good(found) == {}
    assert len(checked) <= 4096 + len(stream) // 16
    assert sum(checked) <= 64 * len(stream)


def test_a_deframer_that_skips_no_damage_ends_at_the_first() -> None:
    stream = stream_of([b"abcd", b"efgh", b"ijkl"])
    deframer = Deframer(skips_damage=False)

    found = list(deframer.feed(flipped(stream, 8 * 40)))

    assert set(good(found)) == {0}
    assert found[1:] == [Damage(1, 1, HEADER_BYTES + FRAME_HEAD_BYTES + 4)]
