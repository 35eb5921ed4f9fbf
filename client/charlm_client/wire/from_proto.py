"""Messages to values."""

import struct

from google.protobuf.message import Message

from charlm.v1 import (
    distribution_pb2,
    generation_pb2,
    models_pb2,
    scoring_pb2,
    tokenizer_pb2,
)
from charlm_client.types import (
    Chunk,
    Encoding,
    EvaluationResult,
    FinishReason,
    Generation,
    Mixture,
    Model,
    NextDistribution,
    Output,
    OutputEnd,
    Score,
    StreamHeader,
    TopToken,
)

_FINISH_REASONS = {
    number: FinishReason(name.removeprefix("FINISH_REASON_").lower())
    for name, number in generation_pb2.FinishReason.items()
}


def generation_from(message: generation_pb2.GenerateResponse) -> Generation:
    return Generation(
        outputs=tuple(map(_output_from, message.outputs)),
        seed=message.seed,
        num_prompt_tokens=message.num_prompt_tokens,
        model=message.model,
        model_digest=message.model_digest,
        numerics_id=message.numerics.id,
    )


def _output_from(message: generation_pb2.Output) -> Output:
    return Output(
        index=message.index,
        text=message.text,
        data=message.data,
        token_ids=tuple(message.tokens.token_ids),
        logprobs=tuple(message.tokens.logprobs),
        end=_end_from(message.end),
        constraint_log_masses=tuple(message.tokens.constraint_log_masses),
    )


def header_from(message: generation_pb2.StreamHeader) -> StreamHeader:
    return StreamHeader(
        model=message.model,
        model_digest=message.model_digest,
        numerics_id=message.numerics.id,
        seed=message.seed,
        num_prompt_tokens=message.num_prompt_tokens,
    )


def chunk_from(message: generation_pb2.OutputChunk) -> Chunk:
    return Chunk(
        index=message.index,
        text=message.text,
        data=message.data,
        first_position=message.tokens.first_position,
        token_ids=tuple(message.tokens.token_ids),
        logprobs=tuple(message.tokens.logprobs),
        sampling_logprobs=tuple(message.tokens.sampling_logprobs),
        resume_token=message.resume_token,
        end=_end_from(message.end) if message.HasField("end") else None,
        constraint_log_masses=tuple(message.tokens.constraint_log_masses),
    )


def _end_from(message: generation_pb2.OutputEnd) -> OutputEnd:
    return OutputEnd(
        finish_reason=_FINISH_REASONS.get(message.finish_reason, FinishReason.UNSPECIFIED),
        matched_stop_sequence=message.matched_stop_sequence,
        num_new_tokens=message.num_new_tokens,
        total_logprob=message.total_logprob,
        log_evidence=message.log_evidence if message.HasField("log_evidence") else None,
        effective_sample_size=message.effective_sample_size
        if message.HasField("effective_sample_size")
        else None,
    )


def score_from(message: scoring_pb2.Score, vocabulary: tuple[bytes, ...] = ()) -> Score:
    """`vocabulary` is needed only for scores with the most probable tokens."""
    tokens = message.tokens
    return Score(
        total_logprob=message.total_logprob,
        num_tokens=message.num_tokens,
        num_characters=message.num_characters,
        num_bytes=message.num_bytes,
        bits_per_character=message.bits_per_character,
        bits_per_byte=message.bits_per_byte,
        is_greedy=message.is_greedy,
        token_ids=tuple(tokens.token_ids),
        character_offsets=tuple(tokens.character_offsets),
        logprobs=tuple(tokens.logprobs),
        ranks=tuple(tokens.ranks),
        entropies=tuple(tokens.entropies),
        top=_top_from(tokens.top_tokens, vocabulary),
        distributions=_rows_from(tokens.distributions),
    )


def distribution_from(
    message: scoring_pb2.GetNextDistributionResponse, vocabulary: tuple[bytes, ...]
) -> NextDistribution:
    (logprobs,) = _rows_from(message.distribution)
    top = _top_from(message.top_tokens, vocabulary)
    return NextDistribution(logprobs=logprobs, top=top[0] if top else (), entropy=message.entropy)


def _rows_from(message: distribution_pb2.Distributions) -> tuple[tuple[float, ...], ...]:
    if not message.num_positions:
        return ()
    return tuple(struct.iter_unpack(f"<{message.vocab_size}f", message.data))


def _top_from(
    message: distribution_pb2.TopTokens, vocabulary: tuple[bytes, ...]
) -> tuple[tuple[TopToken, ...], ...]:
    """By position, then from the most probable token on."""
    tokens = [
        TopToken(
            token_id=token_id,
            data=vocabulary[token_id],
            text=vocabulary[token_id].decode(errors="replace"),
            logprob=logprob,
        )
        for token_id, logprob in zip(message.token_ids, message.logprobs, strict=True)
    ]
    return tuple(tuple(tokens[at : at + message.k]) for at in range(0, len(tokens), message.k or 1))


def encoding_from(message: tokenizer_pb2.Encoding) -> Encoding:
    return Encoding(
        token_ids=tuple(message.token_ids), character_offsets=tuple(message.character_offsets)
    )


def model_from(message: models_pb2.Model) -> Model:
    return Model(
        name=message.name,
        digest=message.digest,
        family=_name_in(message, "family"),
        num_parameters=message.num_parameters,
        vocabulary_kind=_name_in(message, "vocabulary_kind"),
        vocab_size=message.vocab_size,
        unit=_name_in(message, "unit"),
        context_length=message.context_length,
        state_size_bytes=message.state_size_bytes,
        max_new_tokens=message.limits.max_new_tokens,
        max_outputs=message.limits.max_outputs,
        numerics_id=message.numerics.id,
        is_batch_invariant=message.numerics.is_batch_invariant,
        evaluations=tuple(map(_evaluation_from, message.training_report.evaluations)),
        mixture=_mixture_from(message.mixture) if message.HasField("mixture") else None,
    )


def _mixture_from(message: models_pb2.Mixture) -> Mixture:
    return Mixture(
        kind=_name_in(message, "kind"),
        models=tuple(message.models),
        weights=tuple(message.weights),
    )


def _evaluation_from(message: models_pb2.EvaluationResult) -> EvaluationResult:
    return EvaluationResult(
        protocol=message.protocol,
        nats_per_character=message.nats_per_character,
        bits_per_character=message.bits_per_character,
        bits_per_byte=message.bits_per_byte,
        num_characters=message.num_characters,
    )


def _name_in(message: Message, field: str) -> str:
    """An enum field's value as people write it; one of a newer server has only its number."""
    value = getattr(message, field)
    kind = message.DESCRIPTOR.fields_by_name[field].enum_type
    assert kind is not None
    names = kind.values_by_number
    if value not in names:
        return f"unknown {value}"
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    return names[value].name.removeprefix(prefix).lower()
