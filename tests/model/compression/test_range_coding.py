"""Compression: any bytes round-trip, with every vocabulary and family, near the entropy."""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm_model.compression.byte_escape import EscapingTokenizer
from charlm_model.compression.frames import Frame
from charlm_model.compression.range_coding import DecodingRow, EncodingRow, decode_rows, encode_rows
from charlm_model.compression.rows import FrameSplitter, decoding_rows, text_from
from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.inference.batched_steps import Stepper
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary

KOREAN = "한국어 문장과 naïve text 👩‍🚀, and more: 다람쥐 헌 쳇바퀴에 타고파.\n"
FAMILIES = ("rnn", "gru", "lstm", "transformer")
KINDS = ("byte", "char", "sentencepiece")
anything = st.one_of(st.binary(max_size=60), st.text(max_size=40).map(str.encode))


@cache
def vocabulary_of(kind: str) -> Vocabulary:
    if kind == "byte":
        return ByteVocabulary()
    if kind == "char":
        return CharVocabulary("abcdefg .é한")
    return SentencePieceVocabulary.train([KOREAN * 40], 320)


@cache
def stepper_of(family: str, kind: str, scale: float = 0.5) -> Stepper:
    torch.manual_seed(1)
    config = ModelConfig(
        family=family,
        vocab_size=vocabulary_of(kind).size,
        embedding_size=8,
        hidden_size=16,
        num_heads=2,
        context_length=12,
    )
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return Stepper(model.eval(), (1, 2, 3, 4, 8))


@torch.inference_mode()
def round_trip(
    stepper: Stepper, tokenizer: EscapingTokenizer, texts: list[bytes]
) -> list[EncodingRow]:
    """Encode in one batch, decode in another order and batch, and check that texts are equal."""
    model = stepper.model
    logits_11V, state = model.advance(torch.tensor([[0]]), model.initial_state(1))
    escaped = [tokenizer.encode(text) for text in texts]
    rows = [EncodingRow(each) for each in escaped]
    for _ in encode_rows(stepper, state.clone(), logits_11V[0], rows):
        pass
    back = [
        DecodingRow(row.payload(), len(each.ids)) for row, each in zip(rows, escaped, strict=True)
    ][::-1]
    back.append(DecodingRow(rows[0].payload(), len(escaped[0].ids)))
    for _ in decode_rows(stepper, state.clone(), logits_11V[0], back):
        pass
    decoded = [tokenizer.decode(row.escaped) for row in back]
    assert decoded == [*texts[::-1], texts[0]]
    return rows


@pytest.mark.parametrize("kind", KINDS)
@given(data=anything)
def test_any_bytes_round_trip_through_escapes(kind: str, data: bytes) -> None:
    tokenizer = EscapingTokenizer(vocabulary_of(kind))

    escaped = tokenizer.encode(data)

    assert tokenizer.decode(escaped) == data
    assert len(escaped.ids) <= len(data)
    assert all(1 <= len(run) <= 256 for run in escaped.runs)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=8, deadline=None)
@given(texts=st.lists(anything, min_size=1, max_size=7))
def test_what_was_encoded_is_decoded(family: str, kind: str, texts: list[bytes]) -> None:
    round_trip(stepper_of(family, kind), EscapingTokenizer(vocabulary_of(kind)), texts)


@pytest.mark.slow
def test_extreme_probabilities_round_trip() -> None:
    """Probabilities near 1, and far below the coder's resolution."""
    tokenizer = EscapingTokenizer(vocabulary_of("char"))

    (row,) = round_trip(stepper_of("gru", "char", 30.0), tokenizer, [b"abc \xff\xfe xyz " * 20])

    assert row.model_bits > 20 * 8


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_payload_is_within_a_hundredth_of_the_cross_entropy(kind: str) -> None:
    text = ("abc def. gé 한 " * 400).encode()

    (row,) = round_trip(stepper_of("lstm", kind), EscapingTokenizer(vocabulary_of(kind)), [text])

    assert 8 * len(row.payload()) <= 1.01 * row.model_bits + 64


def test_a_text_of_unknown_characters_costs_little_more_than_itself() -> None:
    text = KOREAN.encode() * 60

    (row,) = round_trip(
        stepper_of("gru", "char"), EscapingTokenizer(CharVocabulary("abcdefgXYZQW")), [text]
    )

    assert len(row.payload()) <= 1.5 * len(text)


def test_the_format_does_not_change() -> None:
    """Bytes from constriction 0.5.0: another format would need another magic number."""
    stored = bytes.fromhex("945e5e447dae40250d896400fd641c6d932ddb32c1d5b1bd")
    logprobs_1V = np.full((1, 257), np.log(1 / 257))
    logprobs_1V[:, 98] = np.log(0.25)
    row = DecodingRow(stored, 21)

    while row.num_left:
        row.decode(np.exp(logprobs_1V).astype(np.float32), logprobs_1V[0])

    assert EscapingTokenizer(ByteVocabulary()).decode(row.escaped) == b"The coder's own bits."


@given(pieces=st.lists(anything), size=st.integers(4, 12))
def test_a_text_is_split_between_characters_for_any_pieces(pieces: list[bytes], size: int) -> None:
    splitter = FrameSplitter(size)

    cut = [piece for each in pieces for piece in splitter.feed(each)]

    together = FrameSplitter(size)
    assert b"".join([*cut, splitter.rest()]) == b"".join(pieces)
    assert cut == list(together.feed(b"".join(pieces)))
    assert all(size - 3 <= len(piece) <= size for piece in cut)


@given(text=st.text())
def test_no_character_is_cut(text: str) -> None:
    splitter = FrameSplitter(5)

    cut = [*splitter.feed(text.encode()), splitter.rest()]

    assert "".join(piece.decode() for piece in cut) == text


@settings(max_examples=20)
@given(words=st.lists(st.integers(0, 2**32 - 1), max_size=4), num_tokens=st.integers(0, 9))
@torch.inference_mode()
def test_a_forged_payload_decodes_to_something(words: list[int], num_tokens: int) -> None:
    """Checksums can be forged; the decoder must terminate on any bytes."""
    stepper = stepper_of("gru", "char")
    payload = b"".join(word.to_bytes(4, "little") for word in words)
    logits_11V, state = stepper.model.advance(torch.tensor([[0]]), stepper.model.initial_state(1))
    frame = Frame(0, num_tokens, 1, payload, True)

    (row,) = decoding_rows([frame])
    for _ in decode_rows(stepper, state, logits_11V[0], [row]):
        pass

    assert text_from(EscapingTokenizer(vocabulary_of("char")), frame, row) is None
