"""Sampling and stopping messages to values and back."""

import secrets

from charlm.v1 import sampling_pb2
from charlm_model.constraints.constraint import Constraint
from charlm_model.errors import InvalidSampling
from charlm_model.sampling.params import SamplingParams
from charlm_server.config.limits import Limits
from charlm_server.config.settings import DEFAULT_MAX_NEW_TOKENS
from charlm_server.engine.generation import ConstraintSearch, Stopping
from charlm_server.engine.job import FOREVER
from charlm_server.engine.stop_sequences import StopAutomaton
from charlm_server.errors.base import Described, InvalidRequest
from charlm_server.rpc.convert.fields import (
    check_count,
    check_token_ids,
    seconds_of,
)

PLAIN_FIELDS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "penalty_window",
)


def seed_from(sampling: sampling_pb2.SamplingParams, resumed_seed: int | None) -> int:
    """The seed of the request, else that of the stream that is resumed, else a new one."""
    if sampling.HasField("seed"):
        return sampling.seed
    return new_seed() if resumed_seed is None else resumed_seed


def new_seed() -> int:
    """Below 2^53, so that JavaScript and jq read it from JSON without rounding."""
    return secrets.randbits(53)


def sampling_params_from(
    message: sampling_pb2.SamplingParams, vocab_size: int, limits: Limits
) -> SamplingParams:
    """The request's values, and SamplingParams' own defaults for what is unset."""
    check_count("sampling.biases", len(message.biases), 0, limits.max_biases)
    biased_ids = [bias.token_id for bias in message.biases]
    check_token_ids(biased_ids, vocab_size, "sampling.biases", ".token_id")
    if len(set(biased_ids)) < len(biased_ids):
        raise InvalidRequest("sampling.biases", biased_ids, "at most one for each token")
    given = {field.name: value for field, value in message.ListFields()}
    given = {name: given[name] for name in PLAIN_FIELDS if name in given}
    logit_bias = {bias.token_id: bias.bias for bias in message.biases}
    try:
        return SamplingParams(**given, logit_bias=logit_bias)
    except InvalidSampling as error:
        # There the biases are a mapping, on the wire a list.
        names = {f"logit_bias[{each}]": f"biases[{i}].bias" for i, each in enumerate(biased_ids)}
        field = names.get(error.field, error.field)
        raise InvalidRequest(f"sampling.{field}", error.value, error.allowed) from error


def sampling_message_from(params: SamplingParams) -> sampling_pb2.SamplingParams:
    """Every value spelled out, as GetModel returns the defaults."""
    return sampling_pb2.SamplingParams(**{name: getattr(params, name) for name in PLAIN_FIELDS})


def stopping_from(
    message: sampling_pb2.StoppingParams,
    limits: Limits,
    constraint: Constraint | None = None,
    search: ConstraintSearch | None = None,
) -> Stopping:
    num_stops = len(message.stop_sequences)
    check_count("stopping.stop_sequences", num_stops, 0, limits.max_stop_sequences)
    stops = [stop.encode() for stop in message.stop_sequences]
    for index, stop in enumerate(stops):
        if not 1 <= len(stop) <= limits.max_stop_sequence_bytes:
            allowed = f"from 1 to {limits.max_stop_sequence_bytes} bytes long"
            text = message.stop_sequences[index]
            raise InvalidRequest(f"stopping.stop_sequences[{index}]", text, allowed)
    given = message.max_new_tokens if message.HasField("max_new_tokens") else DEFAULT_MAX_NEW_TOKENS
    check_count("stopping.max_new_tokens", given, 1, limits.max_new_tokens)
    least = 1 if constraint is None else constraint.missing(constraint.start)
    if given < least:
        allowed = f"at least {least}, the length of the constraint's shortest output"
        raise InvalidRequest("stopping.max_new_tokens", given, allowed)
    return Stopping(
        max_new_tokens=given,
        stops=StopAutomaton(stops) if stops else None,
        include_stop=message.include_stop_sequence,
        ignore_end_of_text=message.ignore_end_of_text,
        constraint=constraint,
        search=search,
    )


def time_limit_from(message: sampling_pb2.StoppingParams, now: float) -> float:
    """When the outputs must end, on the clock of `now`. Raises InvalidRequest."""
    if not message.HasField("max_time"):
        return FOREVER
    seconds = seconds_of(message.max_time, "stopping.max_time")
    if seconds <= 0:
        raise InvalidRequest("stopping.max_time", Described(f"{seconds:g} s"), "above 0 s")
    return now + seconds
