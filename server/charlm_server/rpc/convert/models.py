"""Loaded models to messages: what GetModel returns, and the numerics in every response."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from charlm.v1 import distribution_pb2, tokenizer_pb2
from charlm.v1 import models_pb2 as pb
from charlm_model.sampling.params import SamplingParams
from charlm_server.config.limits import Limits
from charlm_server.config.mixtures import MixtureConfig
from charlm_server.models.registry import LoadedModel
from charlm_server.rpc.convert.fields import duration_from, timestamp_from
from charlm_server.rpc.convert.sampling import sampling_message_from

FAMILIES = {
    "ngram": pb.MODEL_FAMILY_NGRAM,
    "rnn": pb.MODEL_FAMILY_RNN,
    "gru": pb.MODEL_FAMILY_GRU,
    "lstm": pb.MODEL_FAMILY_LSTM,
    "transformer": pb.MODEL_FAMILY_TRANSFORMER,
    "mixture": pb.MODEL_FAMILY_MIXTURE,
}
MIXTURE_KINDS = {
    "linear": pb.MIXTURE_KIND_LINEAR,
    "log_linear": pb.MIXTURE_KIND_LOG_LINEAR,
    "online": pb.MIXTURE_KIND_ONLINE,
}
UNITS = {"stream": pb.DOCUMENT_UNIT_STREAM, "line": pb.DOCUMENT_UNIT_LINE}
VOCABULARY_KINDS = {
    "char": tokenizer_pb2.VOCABULARY_KIND_CHAR,
    "byte": tokenizer_pb2.VOCABULARY_KIND_BYTE,
    "sentencepiece": tokenizer_pb2.VOCABULARY_KIND_SENTENCEPIECE,
}
WITH_LAYERS = {"rnn", "gru", "lstm", "transformer"}
WITH_WINDOW = {"ngram", "transformer"}


def model_from(model: LoadedModel) -> pb.Model:
    config = model.checkpoint.config
    has_layers = config.family in WITH_LAYERS
    return pb.Model(
        name=model.name,
        digest=model.checkpoint.digest,
        family=FAMILIES.get(config.family, pb.MODEL_FAMILY_UNSPECIFIED),
        num_parameters=model.checkpoint.model.num_parameters,
        num_layers=config.num_layers if has_layers else 0,
        hidden_size=config.hidden_size if has_layers else 0,
        vocabulary_kind=VOCABULARY_KINDS[model.vocabulary.kind],
        vocab_size=config.vocab_size,
        unit=UNITS[config.unit],
        context_length=config.context_length if config.family in WITH_WINDOW else 0,
        state_size_bytes=model.state_size_bytes,
        limits=limits_from(model.limits),
        default_sampling=sampling_message_from(SamplingParams()),
        numerics=numerics_from(model),
        training_report=report_from(model.checkpoint.report),
        load_time=timestamp_from(model.load_time_s),
        mixture=None if model.mixture is None else mixture_from(model.mixture),
    )


def mixture_from(mixture: MixtureConfig) -> pb.Mixture:
    return pb.Mixture(
        kind=MIXTURE_KINDS[mixture.kind], models=mixture.members, weights=mixture.weights
    )


def limits_from(limits: Limits) -> pb.Limits:
    """Every limit under its own name; a caller's share as absolute numbers."""
    told = pb.Limits(
        max_queued_requests_per_caller=limits.share_of(limits.max_queued_requests),
        max_queued_tokens_per_caller=limits.share_of(limits.max_queued_tokens),
        max_states_per_caller=limits.share_of(limits.max_states),
        max_states_bytes_per_caller=limits.share_of(limits.max_states_bytes),
    )
    for name, value in asdict(limits).items():
        if name.endswith("_s"):
            getattr(told, name.removesuffix("_s")).CopyFrom(duration_from(value))
        elif name != "caller_share":
            setattr(told, name, value)
    return told


def report_from(report: Mapping[str, Any]) -> pb.TrainingReport:
    """The checkpoint's training report; values that it lacks stay unset."""
    training, data = report.get("training", {}), report.get("data", {})
    return pb.TrainingReport(
        evaluations=[_evaluation_from(entry) for entry in report.get("validation", [])],
        num_training_tokens=training.get("tokens", 0),
        training_time=duration_from(training.get("elapsed_s", 0.0)),
        data_digest=data.get("sha256", ""),
        command=training.get("command", ""),
    )


def _evaluation_from(entry: Mapping[str, Any]) -> pb.EvaluationResult:
    return pb.EvaluationResult(
        protocol=entry["protocol"],
        nats_per_character=entry["nats_per_character"],
        bits_per_character=entry["bits_per_character"],
        bits_per_byte=entry["bits_per_byte"],
        num_characters=entry["num_characters"],
    )


def numerics_from(model: LoadedModel) -> distribution_pb2.Numerics:
    """The arithmetic that determines the bits of the model's results."""
    return distribution_pb2.Numerics(
        id=model.numerics, is_batch_invariant=model.batch_invariance.is_batch_invariant
    )
