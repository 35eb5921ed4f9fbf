"""A real server on a free port over tiny models with random weights, and its stubs."""

from __future__ import annotations  # the asynchronous stubs exist for type checkers only

import hashlib
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import grpc
import numpy as np
import torch
from google.rpc import error_details_pb2, status_pb2

from charlm.v1 import generation_pb2 as gen
from charlm.v1 import (
    generation_pb2_grpc,
    inference_pb2_grpc,
    models_pb2_grpc,
    scoring_pb2_grpc,
    state_pb2_grpc,
    tokenizer_pb2_grpc,
)
from charlm_model.checkpoint import Checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families.kneser_ney import fit
from charlm_model.families.ngram import NGram
from charlm_model.families.registry import build
from charlm_model.language_model import LanguageModel
from charlm_model.text.sentencepiece_vocabulary import SentencePieceVocabulary
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary
from charlm_server.app import App
from charlm_server.config.limits import Limits
from charlm_server.config.mixtures import named_mixtures
from charlm_server.config.settings import ServeConfig
from charlm_server.models.loading import mixtures_of, serve_checkpoint
from charlm_server.models.registry import LoadedModel, Models
from charlm_server.rpc.error_interceptor import STATUS_DETAILS

TEXT = "한국어 문장과 emoji 👩‍🚀🇰🇷 with naïve text, and more: 다람쥐 헌 쳇바퀴에 타고파. 🎉\n" * 40
LATIN = "abcdefghijklmnopqrstuvwxyz .,\n"

# Channels of one process share one connection to an address, or what it was refused, otherwise.
OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@dataclass(frozen=True)
class Wire:
    """A channel to a running server, and the server's insides for looking."""

    address: str
    channel: grpc.aio.Channel
    models: Models
    app: App

    @asynccontextmanager
    async def unbuffered(self) -> AsyncIterator[Wire]:
        """The same server through a channel that reads hardly ahead of its caller."""
        options = [("grpc.http2.bdp_probe", 0), ("grpc.http2.lookahead_bytes", 1024)]
        async with grpc.aio.insecure_channel(self.address, options=options) as channel:
            yield replace(self, channel=channel)

    @property
    def generation(self) -> generation_pb2_grpc.GenerationServiceAsyncStub:
        return generation_pb2_grpc.GenerationServiceStub(self.channel)

    @property
    def scoring(self) -> scoring_pb2_grpc.ScoringServiceAsyncStub:
        return scoring_pb2_grpc.ScoringServiceStub(self.channel)

    @property
    def states(self) -> state_pb2_grpc.StateServiceAsyncStub:
        return state_pb2_grpc.StateServiceStub(self.channel)

    @property
    def inference(self) -> inference_pb2_grpc.InferenceServiceAsyncStub:
        return inference_pb2_grpc.InferenceServiceStub(self.channel)

    @property
    def tokenizer(self) -> tokenizer_pb2_grpc.TokenizerServiceAsyncStub:
        return tokenizer_pb2_grpc.TokenizerServiceStub(self.channel)

    @property
    def model_service(self) -> models_pb2_grpc.ModelServiceAsyncStub:
        return models_pb2_grpc.ModelServiceStub(self.channel)

    async def all_ended(self) -> None:
        """Wait until the server has done with every call that used a model."""
        for model in self.models:
            assert await model.usage.unused_within(30)

    async def stream(
        self, request: gen.GenerateRequest, **options: object
    ) -> list[gen.StreamGenerateResponse]:
        streamed = gen.StreamGenerateRequest(generate=request, **options)
        return [response async for response in self.generation.StreamGenerate(streamed)]


def vocabulary_of(kind: str) -> Vocabulary:
    if kind == "char":
        return CharVocabulary.from_text(LATIN)
    if kind == "byte":
        return ByteVocabulary()
    return SentencePieceVocabulary.train([TEXT], 320)


def checkpoint_of(family: str, vocabulary: Vocabulary) -> Checkpoint:
    """A model that was never trained: what it says is noise, but exact noise."""
    torch.manual_seed(1)
    digest = hashlib.sha256(f"{family} {vocabulary.kind}".encode()).hexdigest()
    config = ModelConfig(
        family=family,
        vocab_size=vocabulary.size,
        embedding_size=8,
        hidden_size=16,
        num_heads=2,
        context_length=12,
    )
    if family == "ngram":
        ids = np.random.default_rng(3).integers(0, vocabulary.size, 2000)
        model: LanguageModel = NGram(config, fit(ids, vocabulary.size, config.context_length))
        return Checkpoint(model=model, vocabulary=vocabulary, report={}, digest=digest)
    model = build(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    model.eval()
    return Checkpoint(model=model, vocabulary=vocabulary, report={}, digest=digest)


def load(*kinds: tuple[str, str], limits: Limits | None = None) -> list[LoadedModel]:
    """One model for each (family, vocabulary kind), named after both."""
    config = ServeConfig(checkpoints={}, max_batch_size=8, threads=1, limits=limits or Limits())
    return [
        serve_checkpoint(
            f"models/{family}-{kind}", checkpoint_of(family, vocabulary_of(kind)), config
        )
        for family, kind in kinds
    ]


@asynccontextmanager
async def serving(
    *kinds: tuple[str, str],
    limits: Limits | None = None,
    mixtures: Iterable[str] = (),
    **settings: Any,
) -> AsyncIterator[Wire]:
    """A server over fresh engines; it drains at the end."""
    loaded = load(*kinds, limits=limits)
    config = ServeConfig(
        checkpoints={},
        port=0,
        drain_grace_s=5.0,
        limits=limits or Limits(),
        max_batch_size=8,
        threads=1,
        mixtures=named_mixtures(mixtures, [model.name for model in loaded]),
        **settings,
    )
    models = Models([*loaded, *mixtures_of(loaded, config)])
    app = App(config, models)
    address = await app.start()
    try:
        async with grpc.aio.insecure_channel(address, options=OWN_CONNECTION) as channel:
            yield Wire(address, channel, models, app)
    finally:
        await app.drain()


def text_of(responses: list[gen.StreamGenerateResponse], index: int = 0) -> str:
    return "".join(c.text for r in responses for c in r.chunks if c.index == index)


def data_of(responses: list[gen.StreamGenerateResponse], index: int = 0) -> bytes:
    return b"".join(c.data for r in responses for c in r.chunks if c.index == index)


def column(responses: list[gen.StreamGenerateResponse], name: str, index: int = 0) -> list[float]:
    """One column of one output's tokens, joined over the stream."""
    chunks = [c for r in responses for c in r.chunks if c.index == index]
    return [value for chunk in chunks for value in getattr(chunk.tokens, name)]


def details_of(error: grpc.aio.AioRpcError) -> dict[str, object]:
    """The rich details of a refusal, by the name of their message."""
    metadata = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(metadata[STATUS_DETAILS])
    found: dict[str, object] = {}
    for packed in status.details:
        detail = getattr(error_details_pb2, packed.TypeName().rsplit(".", 1)[-1])()
        packed.Unpack(detail)
        found[type(detail).__name__] = detail
    return found
