"""Counts the text in requests and responses, method by method, for the metrics."""

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from charlm.v1 import codec_pb2, generation_pb2, scoring_pb2, state_pb2
from charlm_server.calls.amounts import Amounts

# Fields of requests that hold text for a model, and fields that hold messages with such text.
TEXTS = {"text", "append_text", "texts", "right", "data"}
AROUND_TEXTS = {"generate", "context", "left", "items", "start"}
# `data` in these messages is not text.
NO_TEXTS = (codec_pb2.DecompressRequest, state_pb2.ImportStateRequest)


def num_characters(request: Any) -> int:
    """Code points of all text in a request. Bytes that are not UTF-8 count as one each."""
    if isinstance(request, NO_TEXTS) or not isinstance(request, Message):
        return 0
    found = 0
    for field, value in request.ListFields():
        values = value if field.is_repeated else (value,)
        if field.name in TEXTS:
            found += sum(map(_length, values))
        elif field.name in AROUND_TEXTS:
            found += sum(map(num_characters, values))
    return found


def _length(text: str | bytes) -> int:
    return len(text) if isinstance(text, str) else len(text.decode("utf-8", "replace"))


def _streamed(response: generation_pb2.StreamGenerateResponse, totals: list[Amounts]) -> None:
    num_characters = num_tokens = 0
    for chunk in response.chunks:
        num_characters += len(chunk.text)
        num_tokens += len(chunk.tokens.token_ids)
    num_prompt_tokens = response.header.num_prompt_tokens if response.HasField("header") else 0
    for each in totals:
        each.generated_characters += num_characters
        each.generated_tokens += num_tokens
        each.prompt_tokens += num_prompt_tokens


def _generated(response: generation_pb2.GenerateResponse, totals: list[Amounts]) -> None:
    for each in totals:
        each.generated_characters += sum(len(output.text) for output in response.outputs)
        each.generated_tokens += sum(len(output.tokens.token_ids) for output in response.outputs)
        each.prompt_tokens += response.num_prompt_tokens


def _scored(response: scoring_pb2.ScoreResponse, totals: list[Amounts]) -> None:
    for each in totals:
        each.scored_characters += sum(score.num_characters for score in response.scores)
        each.scored_tokens += sum(score.num_tokens for score in response.scores)


def _stream_scored(response: scoring_pb2.StreamScoreResponse, totals: list[Amounts]) -> None:
    for each in totals:
        each.scored_characters += response.total.num_characters  # only in the last message
        each.scored_tokens += response.total.num_tokens


def _coded(
    response: codec_pb2.CompressResponse | codec_pb2.DecompressResponse, totals: list[Amounts]
) -> None:
    for each in totals:
        each.coded_bytes += response.totals.num_text_bytes  # only in the last message


COUNTER_OF: dict[str, Callable[[Any, list[Amounts]], None]] = {
    "charlm.v1.GenerationService/StreamGenerate": _streamed,
    "charlm.v1.GenerationService/Generate": _generated,
    "charlm.v1.ScoringService/Score": _scored,
    "charlm.v1.ScoringService/StreamScore": _stream_scored,
    "charlm.v1.CodecService/Compress": _coded,
    "charlm.v1.CodecService/Decompress": _coded,
}
