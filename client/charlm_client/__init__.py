"""Asks a charlm server: generate, score, look at the next character. Needs no torch, no numpy."""

from charlm_client.client import Client
from charlm_client.codec import CodecStream, CodecTotals
from charlm_client.comparison import Comparison, ModelScore
from charlm_client.constraint import Constraint
from charlm_client.errors import (
    CharlmError,
    CodecMismatch,
    DataLoss,
    DeadlineExceeded,
    Draining,
    InvalidRequest,
    ModelNotFound,
    NotAllowed,
    NotOffered,
    QueueFull,
    ServerFault,
    StateMismatch,
    TooLarge,
    Unavailable,
    UnknownCharacter,
)
from charlm_client.inference import Continuation, FilledGap, Filling, Gap, TopContinuations
from charlm_client.long_text import ScoredTokens, ScoreStream
from charlm_client.resuming import Resuming
from charlm_client.security import Security
from charlm_client.stream import GenerationStream
from charlm_client.sync import SyncClient, SyncCodecStream, SyncGenerationStream, SyncScoreStream
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
    Sampling,
    Score,
    Stopping,
    StreamHeader,
    TopToken,
)

__all__ = [
    "CharlmError",
    "Chunk",
    "Client",
    "CodecMismatch",
    "CodecStream",
    "CodecTotals",
    "Comparison",
    "Constraint",
    "Continuation",
    "DataLoss",
    "DeadlineExceeded",
    "Draining",
    "Encoding",
    "EvaluationResult",
    "FilledGap",
    "Filling",
    "FinishReason",
    "Gap",
    "Generation",
    "GenerationStream",
    "InvalidRequest",
    "Mixture",
    "Model",
    "ModelNotFound",
    "ModelScore",
    "NextDistribution",
    "NotAllowed",
    "NotOffered",
    "Output",
    "OutputEnd",
    "QueueFull",
    "Resuming",
    "Sampling",
    "Score",
    "ScoreStream",
    "ScoredTokens",
    "Security",
    "ServerFault",
    "StateMismatch",
    "Stopping",
    "StreamHeader",
    "SyncClient",
    "SyncCodecStream",
    "SyncGenerationStream",
    "SyncScoreStream",
    "TooLarge",
    "TopContinuations",
    "TopToken",
    "Unavailable",
    "UnknownCharacter",
]
