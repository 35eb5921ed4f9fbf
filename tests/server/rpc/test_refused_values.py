"""Values out of range: the error names the field, the value and the range."""

from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from charlm.v1 import (
    codec_pb2,
    generation_pb2,
    inference_pb2,
    models_pb2,
    scoring_pb2,
    state_pb2,
    tokenizer_pb2,
)
from charlm_server.app import SERVICES
from charlm_server.rpc.in_process import CallContext, InProcessServer
from tests.server.rpc.test_in_process import MODEL, running

METHODS = {method.full_name: method for service in SERVICES for method in service.methods}
GENERATION, SCORING = "charlm.v1.GenerationService.Generate", "charlm.v1.ScoringService.Score"
STREAM = "charlm.v1.GenerationService.StreamGenerate"
NEXT, COMPARE = (f"charlm.v1.ScoringService.{name}" for name in ("GetNextDistribution", "Compare"))
FILL, TOP = (f"charlm.v1.InferenceService.{name}" for name in ("FillGap", "ListTopContinuations"))
CREATE, LIST = (f"charlm.v1.StateService.{name}" for name in ("CreateState", "ListStates"))
ONE_ITEM = [{"text": "a"}]


async def refusal_of(
    server: InProcessServer, method: MethodDescriptor, request: Message
) -> grpc.aio.AioRpcError:
    async def once() -> Any:
        yield request

    path = f"/{method.containing_service.full_name}/{method.name}"
    given = once() if method.client_streaming else request
    call = last_of if method.server_streaming else InProcessServer.unary
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(server, path, given, CallContext())
    return caught.value


async def last_of(server: InProcessServer, *call: Any) -> Any:
    return [response async for response in server.stream(*call)][-1]


def request_of(method: MethodDescriptor, fields: dict[str, Any]) -> Message:
    return GetMessageClass(method.input_type)(**fields)


def sampling(name: str, value: float, allowed: str) -> tuple[str, dict[str, Any], str]:
    words = f"sampling.{name} is {value}; it must be {allowed}."
    return GENERATION, {"sampling": {name: value}}, words


def stopping(name: str, value: object, words: str) -> tuple[str, dict[str, Any], str]:
    return GENERATION, {"stopping": {name: value}}, f"stopping.{name}{words}."


CASES = [
    sampling("temperature", -1.0, "from 0 to 100"),
    sampling("temperature", float("nan"), "from 0 to 100"),
    sampling("top_k", 2**31, "from 0 to 2147483647"),
    sampling("top_p", 0.0, "above 0 and at most 1"),
    sampling("min_p", 2.0, "from 0 to 1"),
    sampling("typical_p", -0.5, "above 0 and at most 1"),
    sampling("repetition_penalty", 11.0, "above 0 and at most 10"),
    sampling("presence_penalty", 101.0, "from -100 to 100"),
    sampling("frequency_penalty", -101.0, "from -100 to 100"),
    (GENERATION, {"sampling": {"biases": [{"token_id": 1, "bias": 101.0}]}},
     "sampling.biases[0].bias is 101.0; it must be from -100 to 100."),
    (GENERATION, {"sampling": {"biases": [{"token_id": 99}]}},
     "sampling.biases[0].token_id is 99; it must be below 31."),
    stopping("max_new_tokens", 0, " is 0; it must be from 1 to 1000000"),
    stopping("max_time", {"seconds": -1}, " is -1 s; it must be above 0 s"),
    stopping("stop_sequences", ["a"] * 17, " is 17; it must be from 0 to 16"),
    stopping("stop_sequences", ["a", ""], "[1] is ''; it must be from 1 to 256 bytes long"),
    (GENERATION, {"num_outputs": 0}, "num_outputs is 0; it must be from 1 to 64."),
    (GENERATION, {"returns": {"top_k": 257}},
     "returns.top_k is 257; it must be from 0 to 256; `returns.distributions` has all tokens."),
    (GENERATION, {"constraint": {"regex": "a", "num_particles": 0}},
     "constraint.num_particles is 0; it must be from 1 to 256."),
    (GENERATION, {"constraint": {"regex": "a", "max_attempts": 0}},
     "constraint.max_attempts is 0; it must be from 1 to 10000."),
    (GENERATION, {"constraint": {"num_particles": 2}},
     "constraint.kind is unset; it must be regex, choices or allowed_characters."),
    (GENERATION, {"context": {"token_ids": {"ids": [99]}}},
     "context.token_ids.ids[0] is 99; it must be below 31."),
    (GENERATION, {"context": {"state": {}}},
     "context.state is unset; it must be a name or an inline_state."),
    (STREAM, {"max_chunk_tokens": 0}, "max_chunk_tokens is 0; it must be from 1 to 4294967295."),
    (SCORING, {}, "items is 0; it must be from 1 to 4096."),
    (SCORING, {"items": [{}]},
     "items[0].continuation is ''; it must be at least one token, or end_of_text."),
    (NEXT, {"top_k": 257},
     "top_k is 257; it must be from 0 to 256; `distribution` has all tokens."),
    (COMPARE, {"models": [MODEL], "texts": ["a"], "priors": [0.0]},
     "priors[0] is 0.0; it must be positive and finite; to exclude a model, leave it out."),
    (COMPARE, {"models": [MODEL], "texts": [""]},
     "texts[0] is ''; it must be at least one character long."),
    (COMPARE, {"texts": ["a"]}, "models is []; it must be a list of at least one model."),
    (FILL, {"gap_length": 0}, "gap_length is 0; it must be from 1 to 64."),
    (FILL, {"gap_length": 1, "max_fillings": 0}, "max_fillings is 0; it must be from 1 to 1000."),
    (FILL, {"gap_length": 3, "num_particles": 5000},
     "num_particles is 5000; it must be from 1 to 4096."),
    (TOP, {"length": 0}, "length is 0; it must be from 1 to 64."),
    (TOP, {"length": 1, "num_continuations": 0},
     "num_continuations is 0; it must be from 1 to 1000."),
    (TOP, {"length": 1, "max_steps": 0}, "max_steps is 0; it must be from 1 to 1000000."),
    (CREATE, {"time_to_live": {"seconds": 0}},
     "time_to_live is 0 s; it must be above 0 s and at most 86400 s."),
    (LIST, {"page_size": 0}, "page_size is 0; it must be from 1 to 1000."),
    (LIST, {"page_token": "x"},
     "page_token is 'x'; it must be the next_page_token of an earlier response."),
    ("charlm.v1.ModelService.ListModels", {"page_size": 0},
     "page_size is 0; it must be from 1 to 1000."),
    ("charlm.v1.TokenizerService.Encode", {}, "texts is 0; it must be from 1 to 4096."),
    ("charlm.v1.TokenizerService.Decode", {"sequences": [{"ids": [99]}]},
     "sequences[0].ids[0] is 99; it must be below 31."),
]  # fmt: skip


async def test_a_value_out_of_range_is_refused_with_its_field_and_range() -> None:
    async with running() as (server, _):
        for name, fields, words in CASES:
            method = METHODS[name]
            has_model = "model" in method.input_type.fields_by_name
            given = fields | ({"model": MODEL} if has_model else {})
            if name == STREAM:
                given = fields | {"generate": {"model": MODEL}}

            error = await refusal_of(server, method, request_of(method, given))

            assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, words)


UNNAMED: list[tuple[str, Message, str]] = [
    (GENERATION, generation_pb2.GenerateRequest(), "model"),
    (STREAM, generation_pb2.StreamGenerateRequest(), "model"),
    (SCORING, scoring_pb2.ScoreRequest(items=ONE_ITEM), "model"),
    (NEXT, scoring_pb2.GetNextDistributionRequest(), "model"),
    ("charlm.v1.ScoringService.StreamScore", scoring_pb2.StreamScoreRequest(start={}),
     "start.model"),
    (COMPARE, scoring_pb2.CompareRequest(models=[""], texts=["a"]), "models[0]"),
    (FILL, inference_pb2.FillGapRequest(gap_length=1), "model"),
    (TOP, inference_pb2.ListTopContinuationsRequest(length=1), "model"),
    (CREATE, state_pb2.CreateStateRequest(), "model"),
    ("charlm.v1.CodecService.Compress", codec_pb2.CompressRequest(), "model"),
    ("charlm.v1.CodecService.Decompress", codec_pb2.DecompressRequest(), "model"),
    ("charlm.v1.TokenizerService.Encode", tokenizer_pb2.EncodeRequest(texts=["a"]), "model"),
    ("charlm.v1.TokenizerService.Decode", tokenizer_pb2.DecodeRequest(sequences=[{}]), "model"),
    ("charlm.v1.TokenizerService.GetVocabulary", tokenizer_pb2.GetVocabularyRequest(), "model"),
    ("charlm.v1.ModelService.GetModel", models_pb2.GetModelRequest(), "name"),
]  # fmt: skip


async def test_a_request_without_a_model_is_refused_with_the_field() -> None:
    allowed = "it must be the name of a loaded model; ListModels lists them."
    async with running() as (server, _):
        for name, request, field in UNNAMED:
            error = await refusal_of(server, METHODS[name], request)

            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, name
            assert error.details() == f"{field} is unset; {allowed}", name


def test_every_request_that_names_a_model_is_tried_without() -> None:
    wants_model = {
        name
        for name, method in METHODS.items()
        if {"model", "models", "generate", "start"} & set(method.input_type.fields_by_name)
    }

    assert wants_model - {LIST} <= {name for name, *_ in UNNAMED}


async def test_a_kept_state_does_not_stand_in_for_the_model() -> None:
    async with running() as (server, _):
        created = await server.unary(
            "/charlm.v1.StateService/CreateState",
            state_pb2.CreateStateRequest(model=MODEL, context={"text": "once"}),
            CallContext(),
        )
        exported = [
            state_pb2.ImportStateRequest(data=each.data)
            async for each in server.stream(
                "/charlm.v1.StateService/ExportState",
                state_pb2.ExportStateRequest(name=created.state.name),
                CallContext(),
            )
        ]

        async def pieces() -> Any:
            for each in exported:
                yield each

        imported = await server.unary(
            "/charlm.v1.StateService/ImportState", pieces(), CallContext()
        )
        context = {"state": {"name": imported.state.name}}
        error = await refusal_of(
            server, METHODS[GENERATION], generation_pb2.GenerateRequest(context=context)
        )

    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert str(error.details()).startswith("model is unset")
