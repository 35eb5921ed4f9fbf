"""Text to ids and back, with offsets, under every vocabulary."""

import grpc
import pytest

from charlm.v1 import context_pb2, tokenizer_pb2
from tests.server.wire import serving

TEXT = "다람쥐 헌 👩‍🚀 naïve"


@pytest.mark.parametrize("kind", ["byte", "sentencepiece"])
async def test_decoding_undoes_encoding(kind: str) -> None:
    async with serving(("gru", kind)) as wire:
        model = f"models/gru-{kind}"
        encoded = await wire.tokenizer.Encode(
            tokenizer_pb2.EncodeRequest(model=model, texts=[TEXT, ""])
        )
        sequences = [context_pb2.TokenIds(ids=each.token_ids) for each in encoded.encodings]
        decoded = await wire.tokenizer.Decode(
            tokenizer_pb2.DecodeRequest(model=model, sequences=sequences)
        )
        vocabulary = await wire.tokenizer.GetVocabulary(
            tokenizer_pb2.GetVocabularyRequest(model=model)
        )

    first = encoded.encodings[0]
    assert list(decoded.texts) == [TEXT, ""]
    assert list(decoded.data) == [TEXT.encode(), b""]
    assert b"".join(vocabulary.tokens[each] for each in first.token_ids) == TEXT.encode()
    assert first.character_offsets[0] == 0
    assert list(first.character_offsets) == sorted(first.character_offsets)
    assert max(first.character_offsets) < len(TEXT)


async def test_characters_are_their_own_offsets() -> None:
    async with serving(("lstm", "char")) as wire:
        encoded = await wire.tokenizer.Encode(
            tokenizer_pb2.EncodeRequest(model="models/lstm-char", texts=["hello"])
        )

    assert list(encoded.encodings[0].character_offsets) == [0, 1, 2, 3, 4]


async def test_bytes_that_are_no_characters_are_replaced_in_the_text_alone() -> None:
    async with serving(("gru", "byte")) as wire:
        half = [byte + 1 for byte in "한".encode()[:2]]
        decoded = await wire.tokenizer.Decode(
            tokenizer_pb2.DecodeRequest(
                model="models/gru-byte", sequences=[context_pb2.TokenIds(ids=half)]
            )
        )

    assert decoded.texts[0] == "\N{REPLACEMENT CHARACTER}"
    assert decoded.data[0] == "한".encode()[:2]


@pytest.mark.parametrize("ids", [[31], [1, 2, 2**32 - 1]])
async def test_an_id_outside_the_vocabulary_is_refused(ids: list[int]) -> None:
    async with serving(("lstm", "char")) as wire:
        request = tokenizer_pb2.DecodeRequest(
            model="models/lstm-char", sequences=[context_pb2.TokenIds(ids=ids)]
        )
        with pytest.raises(grpc.aio.AioRpcError, match="below 31") as refusal:
            await wire.tokenizer.Decode(request)

    assert refusal.value.code() is grpc.StatusCode.INVALID_ARGUMENT
