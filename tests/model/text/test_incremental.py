"""A text that arrives in pieces has the ids of the whole text."""

from functools import cache
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm_model.errors import InvalidUtf8, UnknownCharacter
from charlm_model.text.incremental import IncrementalEncoder
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary

TEXT = "한국어 문장과 emoji 👩‍🚀🇰🇷 with  naïve text,\nand more: aaaaaa bbbbbb **** ▁ 다람쥐.\n" * 40
KINDS = ["char", "byte", "unigram", "bpe"]


@cache
def vocabulary(kind: str) -> Vocabulary:
    if kind == "char":
        return CharVocabulary.from_text(TEXT)
    if kind == "byte":
        return ByteVocabulary()
    return SentencePieceVocabulary.train([TEXT], 340, "bpe" if kind == "bpe" else "unigram")


def fed(encoder: IncrementalEncoder, pieces: list[bytes]) -> list[int]:
    ids = [token_id for piece in pieces for token_id in encoder.feed(piece).tolist()]
    return ids + encoder.feed(b"", is_last=True).tolist()


@pytest.mark.slow
@given(
    st.sampled_from(KINDS),
    st.text(st.sampled_from(sorted(set(TEXT))), max_size=60),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_encoding_any_pieces_gives_the_same_ids(kind: str, text: str, cuts: list[int]) -> None:
    data = text.encode()
    edges = sorted(min(cut, len(data)) for cut in cuts)
    pieces = [data[start:end] for start, end in pairwise([0, *edges, len(data)])]

    ids = fed(IncrementalEncoder(vocabulary(kind)), pieces)

    assert ids == vocabulary(kind).encode(text)


@pytest.mark.parametrize("kind", KINDS)
def test_encoding_byte_by_byte_gives_the_same_ids(kind: str) -> None:
    ids = fed(IncrementalEncoder(vocabulary(kind)), [bytes([byte]) for byte in TEXT.encode()])

    assert ids == vocabulary(kind).encode(TEXT)


@pytest.mark.parametrize("kind", KINDS)
def test_the_encoder_holds_back_little_of_an_endless_text(kind: str) -> None:
    """Six equal letters are a piece here, so a run of the letter may continue to be one."""
    encoder = IncrementalEncoder(vocabulary(kind))

    num_ids = sum(len(encoder.feed(b"a" * 1000)) for _ in range(50))

    whole = vocabulary(kind).encode("a" * 50_000)
    assert num_ids >= 0.95 * len(whole)
    assert num_ids + len(encoder.feed(b"", is_last=True)) == len(whole)


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
def test_settled_ids_do_not_change(kind: str) -> None:
    pieces = vocabulary(kind)
    for end in range(120):
        num = pieces.num_settled(TEXT[:end])
        settled = pieces.encode(TEXT[:num])
        assert pieces.encode(TEXT[:300])[: len(settled)] == settled


@pytest.mark.parametrize("kind", ["char", "unigram"])
def test_invalid_utf8_is_reported_with_its_offset_in_the_whole_text(kind: str) -> None:
    encoder = IncrementalEncoder(vocabulary(kind))
    encoder.feed("한국".encode() + "어".encode()[:1])

    with pytest.raises(InvalidUtf8) as refusal:
        encoder.feed("어".encode()[1:] + b"a\xffb")

    assert refusal.value.offset == 10


def test_a_truncated_last_character_is_refused() -> None:
    encoder = IncrementalEncoder(vocabulary("char"))
    encoder.feed(b"ab" + "한".encode()[:2])

    with pytest.raises(InvalidUtf8) as refusal:
        encoder.feed(b"", is_last=True)

    assert refusal.value.offset == 2


def test_an_unknown_character_has_its_offset_in_the_whole_text() -> None:
    encoder = IncrementalEncoder(vocabulary("char"))
    encoder.feed("한국".encode())

    with pytest.raises(UnknownCharacter) as refusal:
        encoder.feed(b"aQ")

    assert (refusal.value.character, refusal.value.offset) == ("Q", 3)


def test_unknown_characters_may_be_replaced() -> None:
    encoder = IncrementalEncoder(vocabulary("char"), unknown="replace")

    assert fed(encoder, [b"aQ", b"Qb"]) == vocabulary("char").encode("a  b")


def test_bytes_need_not_be_utf8() -> None:
    ids = fed(IncrementalEncoder(vocabulary("byte")), [b"\xff", b"\x00\x80"])

    assert ids == [256, 1, 129]
