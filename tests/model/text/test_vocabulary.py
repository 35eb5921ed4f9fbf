"""Text to ids and back, exactly; unknown characters are named with their offset."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from charlm_model.errors import InvalidConfig, InvalidUtf8, UnknownCharacter
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary

# Surrogates are not characters: UTF-8 cannot encode them.
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
TRICKY = [
    "",
    " ",
    "  two  spaces  ",
    "\n\n",
    "한국어 텍스트",
    "👩‍👩‍👧 family",
    "e\u0301 and \u0301",
    "\x00\t\x7f",
    "\N{LOWER ONE EIGHTH BLOCK} mark",
    "<0x0A><unk>",
]
ENGLISH = "the cat sat on the mat and the dog sat on the log. " * 40


@pytest.fixture(scope="module", params=["unigram", "bpe"])
def pieces(request: pytest.FixtureRequest) -> SentencePieceVocabulary:
    return SentencePieceVocabulary.train([ENGLISH], 300, request.param)


@given(text=TEXTS)
def test_bytes_round_trip(text: str) -> None:
    vocabulary = ByteVocabulary()
    assert vocabulary.decode(vocabulary.encode(text)) == text


@given(data=st.binary(max_size=50))
def test_any_bytes_are_byte_tokens(data: bytes) -> None:
    vocabulary = ByteVocabulary()
    assert b"".join(map(vocabulary.token_bytes, vocabulary.encode_bytes(data))) == data


@given(text=TEXTS.filter(bool), data=st.data())
def test_characters_round_trip(text: str, data: st.DataObject) -> None:
    vocabulary = CharVocabulary.from_text(text)
    sample = data.draw(st.text(st.sampled_from(sorted(set(text)))))
    assert vocabulary.decode(vocabulary.encode(sample)) == sample


@given(text=TEXTS)
def test_pieces_round_trip(pieces: SentencePieceVocabulary, text: str) -> None:
    ids = pieces.encode(text)
    assert pieces.decode(ids) == text
    assert b"".join(map(pieces.token_bytes, ids)) == text.encode()
    assert 0 not in ids  # the end of text is never part of a text


@pytest.mark.parametrize("text", TRICKY)
def test_tricky_texts_round_trip(pieces: SentencePieceVocabulary, text: str) -> None:
    for vocabulary in (ByteVocabulary(), pieces):
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_pieces_are_longer_than_characters(pieces: SentencePieceVocabulary) -> None:
    assert len(pieces.encode(ENGLISH)) < 0.9 * len(ENGLISH)


def test_a_piece_vocabulary_survives_its_file(pieces: SentencePieceVocabulary) -> None:
    again = SentencePieceVocabulary(pieces.serialized_model)
    assert again.encode("the dog") == pieces.encode("the dog")
    assert again.size == pieces.size


def test_too_few_pieces_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="sentencepiece vocabulary of 100 pieces"):
        SentencePieceVocabulary.train([ENGLISH], 100)


@pytest.mark.parametrize("text", TRICKY)
def test_offsets_point_at_each_tokens_character(pieces: SentencePieceVocabulary, text: str) -> None:
    kinds: list[Vocabulary] = [ByteVocabulary(), pieces]
    kinds += [CharVocabulary.from_text(text)] if text else []
    for vocabulary in kinds:
        ids, offsets = vocabulary.encode_with_offsets(text)

        assert ids == vocabulary.encode(text)
        position = 0
        for token_id, offset in zip(ids, offsets, strict=True):
            assert len(text[:offset].encode()) <= position < len(text[: offset + 1].encode())
            position += len(vocabulary.token_bytes(token_id))


@pytest.mark.parametrize("vocabulary", [CharVocabulary("abé"), ByteVocabulary()])
def test_arrays_hold_the_same_ids(vocabulary: Vocabulary) -> None:
    np.testing.assert_array_equal(vocabulary.encode_array("abéba"), vocabulary.encode("abéba"))


def test_an_unknown_character_is_named_with_its_offset() -> None:
    with pytest.raises(UnknownCharacter, match=r"'ü' \(U\+00FC\) at offset 2") as caught:
        CharVocabulary("abc").encode("abüc")
    assert (caught.value.character, caught.value.offset) == ("ü", 2)


@pytest.mark.parametrize(
    ("characters", "expected"),
    [
        ("ab \N{REPLACEMENT CHARACTER}", "a\N{REPLACEMENT CHARACTER}b"),
        ("ab ", "a b"),
        ("ab", "aab"),
    ],
)
def test_unknown_characters_can_be_replaced(characters: str, expected: str) -> None:
    vocabulary = CharVocabulary(characters)
    assert vocabulary.decode(vocabulary.encode("a€b", unknown="replace")) == expected


def test_the_highest_code_point_is_known() -> None:
    vocabulary = CharVocabulary("a\U0010ffff")
    assert vocabulary.decode(vocabulary.encode("\U0010ffffa")) == "\U0010ffffa"


def test_invalid_utf8_is_named_with_its_offset() -> None:
    with pytest.raises(InvalidUtf8, match="byte 2"):
        CharVocabulary("abc").encode_bytes(b"ab\xffc")


def test_the_end_of_text_is_id_0_and_has_no_text(pieces: SentencePieceVocabulary) -> None:
    for vocabulary in (CharVocabulary("ab"), ByteVocabulary(), pieces):
        assert vocabulary.token_bytes(0) == b""
        assert vocabulary.decode([0]) == ""


def test_sizes_count_the_end_of_text() -> None:
    assert CharVocabulary("ab").size == 3
    assert ByteVocabulary().size == 257


def test_a_vocabulary_is_plain_json() -> None:
    assert json.loads(json.dumps(CharVocabulary("aé").to_json())) == {
        "kind": "char",
        "characters": "aé",
    }


def test_an_empty_or_repeated_character_set_is_refused() -> None:
    for characters in ("", "aa"):
        with pytest.raises(ValueError, match="distinct characters"):
            CharVocabulary(characters)
