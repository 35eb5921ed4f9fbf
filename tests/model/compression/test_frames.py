"""The compressed format: any pieces, every flipped bit detected, at most one frame lost."""

from collections.abc import Iterable
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from charlm_model.compression.frames import (
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
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
    return {each.number for each in found if isinstance(each, Damage)}


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


@settings(deadline=None)
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

    assert damaged(found) == {len(payloads) + 1}


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
