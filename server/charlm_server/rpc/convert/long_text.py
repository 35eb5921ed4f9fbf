"""StreamScore: the requests to a scorer, and scored blocks to responses."""

from collections.abc import AsyncIterator

from charlm.v1 import scoring_pb2 as pb
from charlm_model.exact_sum import ExactSum
from charlm_server.engine.detokenizer import CharacterCounter
from charlm_server.engine.token_columns import Ids, Returns
from charlm_server.errors.base import Described, InvalidRequest
from charlm_server.models.registry import LoadedModel
from charlm_server.rpc.convert.context import ContextResolver
from charlm_server.rpc.convert.fields import TextReader, returns_from
from charlm_server.rpc.convert.models import numerics_from
from charlm_server.rpc.convert.scores import score_from, tokens_from
from charlm_server.state_store import OwnedStates
from charlm_server.tasks.long_text_scoring import Encode, LongTextScorer, ScoredBlock
from charlm_server.tasks.search_series import SearchSeries


async def first_of(requests: AsyncIterator[pb.StreamScoreRequest]) -> pb.StreamScoreRequest:
    """The first message. Raises InvalidRequest if there is none, or it has no `start`."""
    async for request in requests:
        if request.HasField("start"):
            return request
        break
    raise InvalidRequest("start", Described("unset"), "set in the first message")


async def pieces_of(
    first: pb.StreamScoreRequest, requests: AsyncIterator[pb.StreamScoreRequest]
) -> AsyncIterator[bytes]:
    """The text of each message. Raises InvalidRequest for a second `start`."""
    yield first.data
    async for request in requests:
        if request.HasField("start"):
            raise InvalidRequest("start", Described("set again"), "unset after the first message")
        yield request.data


def scorer_from(
    start: pb.StreamScoreStart, series: SearchSeries, *, states: OwnedStates
) -> tuple[LongTextScorer, Encode, "StreamBuilder"]:
    """The scorer, the encoder of its text and the builder of responses. Raises InvalidRequest."""
    model = series.model
    reader = TextReader(model.vocabulary, start.unknown_characters)
    returns = returns_from(start.returns, model.limits, model.vocab_size)
    prefix = ContextResolver(reader, model, states).prefix(start.context, "start.context")
    scorer = LongTextScorer(series, prefix.ids, returns, prefix.snapshot)
    builder, encode = StreamBuilder(model, returns), reader.incremental("data")

    def encode_counted(data: bytes, is_last: bool) -> Ids:
        builder.num_bytes += len(data)
        return encode(data, is_last)

    return scorer, encode_counted, builder


class StreamBuilder:
    """Makes a response of each block and of the totals; holds counts only."""

    def __init__(self, model: LoadedModel, returns: Returns) -> None:
        self._model, self._returns = model, returns
        self._characters = CharacterCounter()
        self._nats = ExactSum()
        self._num_tokens = 0
        self.num_bytes = 0  # of the text as it was sent: characters may have been replaced
        self._is_greedy = True

    def response(self, block: ScoredBlock) -> pb.StreamScoreResponse | None:
        """The response for a block; None if only totals were requested."""
        columns, first_position = block.columns, self._num_tokens
        tokens = [self._model.token_bytes[token] for token in columns.ids_T.tolist()]
        offsets = self._characters.feed(tokens)
        self._nats.add(columns.logprobs_T)
        self._num_tokens += len(columns)
        self._is_greedy &= block.is_greedy
        told = tokens_from(columns, offsets, self._returns, first_position=first_position)
        return pb.StreamScoreResponse(tokens=told) if told else None

    def last_response(self) -> pb.StreamScoreResponse:
        return pb.StreamScoreResponse(
            total=score_from(
                total_logprob=self._nats.value,
                num_tokens=self._num_tokens,
                num_characters=self._characters.finish(),
                num_bytes=self.num_bytes,
                is_greedy=self._is_greedy,
            ),
            model_digest=self._model.checkpoint.digest,
            numerics=numerics_from(self._model),
        )
