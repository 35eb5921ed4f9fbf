"""Score messages, shared by Score, StreamScore and Compare."""

from math import log

from charlm.v1 import scoring_pb2 as pb
from charlm_server.engine.token_columns import Returns, TokenColumns
from charlm_server.rpc.convert.distribution import distributions_of, top_tokens_from

NATS_PER_BIT = log(2)


def bits_per(nats: float, count: int) -> float:
    """Bits for each of `count`; 0 if there are none, as in an end of text alone."""
    return -nats / count / NATS_PER_BIT if count else 0.0


def score_from(
    *,
    total_logprob: float,
    num_tokens: int,
    num_characters: int,
    num_bytes: int,
    is_greedy: bool,
    tokens: pb.ScoredTokens | None = None,
) -> pb.Score:
    """A score, with the rates that follow from its counts; `total_logprob` is in nats."""
    return pb.Score(
        total_logprob=total_logprob,
        num_tokens=num_tokens,
        num_characters=num_characters,
        num_bytes=num_bytes,
        bits_per_character=bits_per(total_logprob, num_characters),
        bits_per_byte=bits_per(total_logprob, num_bytes),
        is_greedy=is_greedy,
        tokens=tokens,
    )


def wants_tokens(returns: Returns) -> bool:
    """Whether values for each token were requested, not only totals."""
    return returns.logprobs or returns.details


def tokens_from(
    columns: TokenColumns, offsets: list[int], returns: Returns, *, first_position: int = 0
) -> pb.ScoredTokens | None:
    """The requested values of each token; None if only totals were requested."""
    if not wants_tokens(returns):
        return None
    return pb.ScoredTokens(
        first_position=first_position,
        token_ids=columns.ids_T.tolist(),
        character_offsets=offsets,
        logprobs=columns.logprobs_T.tolist() if returns.logprobs else None,
        ranks=None if columns.ranks_T is None else columns.ranks_T.tolist(),
        entropies=None if columns.entropies_T is None else columns.entropies_T.tolist(),
        top_tokens=top_tokens_from(columns),
        distributions=distributions_of(columns, returns),
    )
