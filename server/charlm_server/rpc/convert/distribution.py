"""Log-probs of many tokens to messages: the dense and the short form.

Legend: T positions, K alternatives, V vocabulary.
"""

from charlm.v1 import distribution_pb2 as pb
from charlm_server.engine.token_columns import Float64s, Returns, TokenColumns


def top_tokens_from(columns: TokenColumns) -> pb.TopTokens | None:
    """The alternatives of every position; None if none were asked for."""
    if columns.top_ids_TK is None or columns.top_logprobs_TK is None:
        return None
    return pb.TopTokens(
        k=columns.top_ids_TK.shape[1],
        token_ids=columns.top_ids_TK.ravel().tolist(),
        logprobs=columns.top_logprobs_TK.ravel().tolist(),
    )


def distributions_of(columns: TokenColumns, returns: Returns) -> pb.Distributions | None:
    """The whole distribution of every position; None if not asked for."""
    if columns.distributions_TV is None:
        return None
    return distributions_from(columns.distributions_TV, is_float64=returns.is_float64)


def distributions_from(logprobs_TV: Float64s, *, is_float64: bool) -> pb.Distributions:
    num_positions, vocab_size = logprobs_TV.shape
    return pb.Distributions(
        data=logprobs_TV.astype("<f8" if is_float64 else "<f4").tobytes(),
        data_type=pb.DATA_TYPE_FLOAT64 if is_float64 else pb.DATA_TYPE_FLOAT32,
        num_positions=num_positions,
        vocab_size=vocab_size,
    )
