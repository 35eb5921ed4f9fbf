"""Resume tokens on the wire: added to chunks, and read from requests that resume a stream."""

from collections.abc import Iterable

from charlm.v1 import generation_pb2 as pb
from charlm_model.snapshot import Snapshot
from charlm_server.engine.generation import Delta, Origin, Resumption
from charlm_server.engine.resume import ReceivedDigest, ResumePosition
from charlm_server.engine.sequence import GenerationJob
from charlm_server.errors.base import Described, InvalidRequest
from charlm_server.models.registry import LoadedModel
from charlm_server.rpc.convert.fields import check_count, check_token_ids


def resume_positions_from(
    request: pb.StreamGenerateRequest, max_outputs: int
) -> list[tuple[ResumePosition, list[int]]]:
    """The position at which a stream resumes, and the tokens received so far.

    Raises ResumeTokenDamaged, and InvalidRequest for more points than a call can have outputs.
    """
    check_count("resume", len(request.resume), 0, max_outputs)
    return [
        (ResumePosition.from_token(point.resume_token), list(point.received.ids))
        for point in request.resume
    ]


def seed_of(positions: Iterable[tuple[ResumePosition, list[int]]]) -> int | None:
    """The seed of the resumed stream."""
    return next((position.origin.seed for position, _ in positions), None)


def resumed_from(
    positions: list[tuple[ResumePosition, list[int]]], origin: Origin, model: LoadedModel
) -> dict[int, Resumption]:
    """By index of the output. Raises ResumeMismatch, or InvalidRequest for invalid indices."""
    resumed: dict[int, Resumption] = {}
    for at, (position, ids) in enumerate(positions):
        check_token_ids(ids, model.vocab_size, f"resume[{at}].received.ids")
        if position.index in resumed:
            allowed = "of another output"
            raise InvalidRequest(
                f"resume[{at}].resume_token",
                Described(f"of output {position.index} again"),
                allowed,
            )
        resumed[position.index] = position.resumption(origin, ids)
    return resumed


def check_something_is_left(resumed: dict[int, Resumption], num_outputs: int) -> None:
    if sum(each.has_ended for each in resumed.values()) == num_outputs:
        raise InvalidRequest(
            "resume", Described("of outputs that have all ended"), "of at least one that has not"
        )


def origin_of(
    request: pb.GenerateRequest, model: LoadedModel, seed: int, snapshot: Snapshot | None
) -> Origin:
    """The identity of a stream: all that decides its characters.

    Fields that may differ on resumption are left out. A state counts by its content, not its name.
    """
    asked = pb.GenerateRequest()
    asked.CopyFrom(request)
    asked.ClearField("model")
    asked.ClearField("returns")
    asked.ClearField("return_state")
    asked.ClearField("request_id")
    asked.sampling.ClearField("seed")
    asked.stopping.ClearField("max_time")
    if snapshot is not None:
        asked.context.data = snapshot.digest()
    made_by = f"{model.checkpoint.digest} {model.numerics}"
    return Origin.of(made_by, asked.SerializeToString(deterministic=True), seed)


class ResumeTokens:
    """Gives every chunk of a stream its resume token."""

    def __init__(self, origin: Origin, job: GenerationJob) -> None:
        self._origin = origin
        self._received = [ReceivedDigest(each.received_ids) for each in job.sequences]

    def add_to(self, chunks: Iterable[pb.OutputChunk], deltas: list[Delta]) -> None:
        """`deltas` are the ones that the chunks were built from."""
        last_deltas = {delta.index: delta for delta in deltas}
        for chunk in chunks:
            self._received[chunk.index].add(list(chunk.tokens.token_ids))
            last = last_deltas[chunk.index]
            if last.finish is None or not last.finish.reason.is_cut_short:
                chunk.resume_token = self._token(last)

    def _token(self, last: Delta) -> bytes:
        position = ResumePosition(
            origin=self._origin,
            index=last.index,
            num_tokens=last.shown.num_tokens,
            num_bytes=last.shown.num_bytes,
            num_characters=last.shown.num_characters,
            has_ended=last.finish is not None,
            received=self._received[last.index].value,
        )
        return position.to_token()
