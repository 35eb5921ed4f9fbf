"""TokenizerService: encodes, decodes and lists a model's vocabulary."""

from __future__ import annotations  # gRPC's context is generic for type checkers only

from collections.abc import Sequence

import grpc

from charlm.v1 import context_pb2
from charlm.v1 import tokenizer_pb2 as pb
from charlm.v1 import tokenizer_pb2_grpc as pb_grpc
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.engine.detokenizer import CharacterCounter
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.call_context import call_of
from charlm_server.rpc.call_helpers import checked_size, convert_off_loop
from charlm_server.rpc.convert.fields import TextReader, check_count, check_token_ids
from charlm_server.rpc.convert.models import VOCABULARY_KINDS

TOO_LARGE = "send fewer or shorter texts a call"


class TokenizerService(pb_grpc.TokenizerServiceServicer):
    def __init__(self, models: Models) -> None:
        self._models = models

    async def Encode(
        self,
        request: pb.EncodeRequest,
        context: grpc.aio.ServicerContext[pb.EncodeRequest, pb.EncodeResponse],
    ) -> pb.EncodeResponse:
        model = call_of(context).use(self._models.get(request.model))
        check_count("texts", len(request.texts), 1, model.limits.max_score_items)
        encodings = await convert_off_loop(request, _encodings, request, model)
        response = pb.EncodeResponse(encodings=encodings)
        return checked_size(response, model.limits.max_response_message_bytes, TOO_LARGE)

    async def Decode(
        self,
        request: pb.DecodeRequest,
        context: grpc.aio.ServicerContext[pb.DecodeRequest, pb.DecodeResponse],
    ) -> pb.DecodeResponse:
        model = call_of(context).use(self._models.get(request.model))
        check_count("sequences", len(request.sequences), 1, model.limits.max_score_items)
        data = await convert_off_loop(request, _decoded, request.sequences, model)
        texts = [each.decode(errors="replace") for each in data]
        response = pb.DecodeResponse(texts=texts, data=data)
        return checked_size(response, model.limits.max_response_message_bytes, TOO_LARGE)

    async def GetVocabulary(
        self,
        request: pb.GetVocabularyRequest,
        context: grpc.aio.ServicerContext[pb.GetVocabularyRequest, pb.GetVocabularyResponse],
    ) -> pb.GetVocabularyResponse:
        model = call_of(context).use(self._models.get(request.model))
        return pb.GetVocabularyResponse(
            kind=VOCABULARY_KINDS[model.vocabulary.kind],
            tokens=model.token_bytes,
            end_of_text_id=END_OF_TEXT_ID,
        )


def _encodings(request: pb.EncodeRequest, model: LoadedModel) -> list[pb.Encoding]:
    reader = TextReader(model.vocabulary, request.unknown_characters)
    return [
        _encoding(reader.text_ids(text, f"texts[{index}]"), model)
        for index, text in enumerate(request.texts)
    ]


def _encoding(ids: list[int], model: LoadedModel) -> pb.Encoding:
    tokens = [model.token_bytes[token_id] for token_id in ids]
    return pb.Encoding(token_ids=ids, character_offsets=CharacterCounter().feed(tokens))


def _decoded(sequences: Sequence[context_pb2.TokenIds], model: LoadedModel) -> list[bytes]:
    for index, sequence in enumerate(sequences):
        check_token_ids(sequence.ids, model.vocab_size, f"sequences[{index}].ids")
    return [b"".join(model.token_bytes[each] for each in sequence.ids) for sequence in sequences]
