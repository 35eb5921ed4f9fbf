"""State messages to kept states and back."""

import re
import time
from collections.abc import Sequence

from google.protobuf.duration_pb2 import Duration

from charlm.v1 import distribution_pb2
from charlm.v1 import state_pb2 as pb
from charlm_server.config.limits import Limits
from charlm_server.errors.base import Described, InvalidRequest
from charlm_server.rpc.convert.fields import TextReader, check_count, seconds_of, timestamp_from
from charlm_server.state_store import PREFIX, KeptState

MAX_PAGE_SIZE, DEFAULT_PAGE_SIZE = 1000, 100
_PAGE_TOKEN = re.compile(PREFIX + "[0-9a-f]{32}")


def state_from(kept: KeptState, now: float, *, is_batch_invariant: bool) -> pb.State:
    """The message of a kept state; `now` is on the store's clock."""
    numerics = distribution_pb2.Numerics(
        id=kept.provenance.numerics, is_batch_invariant=is_batch_invariant
    )
    return pb.State(
        name=kept.name,
        model=kept.model,
        model_digest=kept.provenance.model_digest,
        numerics=numerics,
        num_tokens=kept.snapshot.num_tokens,
        num_bytes=kept.num_bytes,
        checkpointed_positions=list(kept.checkpoints),
        etag=kept.etag,
        expire_time=timestamp_from(time.time() + kept.expires_at - now),
    )


def continuation_ids(request: pb.AdvanceStateRequest, reader: TextReader) -> list[int]:
    """The ids to read next. Raises InvalidRequest if there are none."""
    ids = reader.ids(request, request.WhichOneof("continuation"))
    if not ids:
        raise InvalidRequest("continuation", "", "at least one token")
    return ids


def time_to_live_from(
    request: pb.CreateStateRequest | pb.ImportStateRequest, limits: Limits
) -> float:
    """Seconds after the last use. Raises InvalidRequest."""
    if not request.HasField("time_to_live"):
        return limits.state_time_to_live_s
    duration: Duration = request.time_to_live
    seconds, longest = seconds_of(duration, "time_to_live"), limits.max_state_time_to_live_s
    if not 0 < seconds <= longest:
        raise InvalidRequest(
            "time_to_live", Described(f"{seconds:g} s"), f"above 0 s and at most {longest:g} s"
        )
    return seconds


def page_of(
    request: pb.ListStatesRequest, states: Sequence[KeptState]
) -> tuple[Sequence[KeptState], str]:
    """One page of the states, which are in order of name, and the next page's token.

    Raises InvalidRequest.
    """
    size = request.page_size if request.HasField("page_size") else DEFAULT_PAGE_SIZE
    check_count("page_size", size, 1, MAX_PAGE_SIZE)
    if request.page_token and not _PAGE_TOKEN.fullmatch(request.page_token):
        raise InvalidRequest(
            "page_token", request.page_token, "the next_page_token of an earlier response"
        )
    later = [state for state in states if state.name > request.page_token]
    page = later[:size]
    return page, page[-1].name if len(later) > size else ""
