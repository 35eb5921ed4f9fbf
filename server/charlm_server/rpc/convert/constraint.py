"""The constraint of a request to the automaton that holds an output to it."""

import asyncio
import hashlib
from collections import OrderedDict
from dataclasses import dataclass

from charlm.v1 import generation_pb2
from charlm.v1 import sampling_pb2 as pb
from charlm_model import errors as model_errors
from charlm_model.constraints import constraint as constraints
from charlm_model.constraints.constraint import Constraint
from charlm_server.engine.generation import ConstraintSearch
from charlm_server.engine.search import MAX_STATE_BYTES
from charlm_server.engine.sequence import GenerationJob
from charlm_server.errors.base import Described, InvalidRequest, InvalidText
from charlm_server.models.registry import LoadedModel
from charlm_server.rpc.convert.fields import TextReader, check_count

LOCAL = (pb.CONSTRAINT_MODE_UNSPECIFIED, pb.CONSTRAINT_MODE_LOCAL_MASK)
MAX_PARTICLES, DEFAULT_PARTICLES = 256, 16
MAX_ATTEMPTS, DEFAULT_ATTEMPTS = 10_000, 100
ATTEMPTS_TOGETHER = 16  # attempts; it changes nothing but the time
MAX_WHOLE_TOKENS, MAX_WHOLE_BYTES = 4096, 16 << 20
MAX_KEPT = 16  # compiled constraints; some 16 MB each at the very most


@dataclass(frozen=True, slots=True)
class CompiledConstraint:
    """The constraint's automaton, and the search that draws the output, if any."""

    constraint: Constraint
    search: ConstraintSearch | None


def search_from(message: pb.Constraint, model: LoadedModel) -> ConstraintSearch | None:
    """Raises InvalidRequest for numbers out of range, or of more rows than fit in memory."""
    particles = message.num_particles if message.HasField("num_particles") else DEFAULT_PARTICLES
    attempts = message.max_attempts if message.HasField("max_attempts") else DEFAULT_ATTEMPTS
    check_count("constraint.num_particles", particles, 1, MAX_PARTICLES)
    check_count("constraint.max_attempts", attempts, 1, MAX_ATTEMPTS)
    if message.mode in LOCAL:
        return None
    row_bytes = model.checkpoint.model.initial_state(1).num_bytes_per_row
    most_rows = max(1, MAX_STATE_BYTES // max(row_bytes, 1))
    if message.mode == pb.CONSTRAINT_MODE_SMC:
        most = min(MAX_PARTICLES, most_rows)
        num = check_count("constraint.num_particles", particles, 1, most)
        return ConstraintSearch(is_monte_carlo=True, num=num, num_together=num)
    if message.mode == pb.CONSTRAINT_MODE_REJECTION:
        together = min(attempts, ATTEMPTS_TOGETHER, most_rows)
        return ConstraintSearch(is_monte_carlo=False, num=attempts, num_together=together)
    raise InvalidRequest("constraint.mode", message.mode, "LOCAL_MASK, REJECTION or SMC")


def check_fits(job: GenerationJob) -> None:
    """A search draws the output as a whole, so stop sequences cannot end it early."""
    if job.stopping.stops is not None:
        allowed = "empty if constraint.mode is REJECTION or SMC"
        raise InvalidRequest("stopping.stop_sequences", Described("not empty"), allowed)
    most = min(MAX_WHOLE_TOKENS, MAX_WHOLE_BYTES // (job.bytes_per_token * job.num_outputs))
    check_count("stopping.max_new_tokens", job.stopping.max_new_tokens, 1, max(most, 1))


def check_size(message: pb.Constraint, model: LoadedModel) -> None:
    """Raises InvalidRequest before the constraint is compiled."""
    num_bytes, limit = message.ByteSize(), model.limits.max_constraint_bytes
    if num_bytes > limit:
        raise InvalidRequest(
            "constraint", Described(f"{num_bytes} bytes"), f"at most {limit} bytes"
        )


class ConstraintCompiler:
    """Compiles constraints, and caches the last ones, since callers repeat them."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()
        self._kept: OrderedDict[tuple[str, str, bytes], Constraint] = OrderedDict()

    async def compiled(
        self, request: generation_pb2.GenerateRequest, model: LoadedModel
    ) -> CompiledConstraint | None:
        """None without a constraint. Compiles in a thread, so that the event loop stays free."""
        if not request.HasField("constraint"):
            return None
        check_size(request.constraint, model)
        search = search_from(request.constraint, model)
        constraint = await self._compiled(_language(request.constraint), model)
        return CompiledConstraint(constraint, search)

    async def _compiled(self, language: pb.Constraint, model: LoadedModel) -> Constraint:
        """From the cache, or compiled in at most two seconds; one at a time, to bound memory."""
        data = language.SerializeToString(deterministic=True)
        key = model.name, model.checkpoint.digest, hashlib.sha256(data).digest()
        if key not in self._kept:
            async with self._one_at_a_time:
                self._kept[key] = await asyncio.to_thread(constraint_from, language, model)
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


def _language(message: pb.Constraint) -> pb.Constraint:
    """The same language, however it is drawn from."""
    language = pb.Constraint()
    language.CopyFrom(message)
    for field in ("mode", "num_particles", "max_attempts"):
        language.ClearField(field)
    return language


def constraint_from(message: pb.Constraint, model: LoadedModel) -> Constraint:
    """Raises InvalidRequest, which names the field."""
    made, limit = _made(message, model), model.limits.max_constraint_states
    if made.num_states > limit:
        field = f"constraint.{message.WhichOneof('kind')}"
        allowed = f"a constraint whose automaton has at most {limit} states"
        raise InvalidRequest(field, Described(f"{made.num_states} states"), allowed)
    return made


def _made(message: pb.Constraint, model: LoadedModel) -> Constraint:
    kind = message.WhichOneof("kind")
    try:
        if kind == "regex":
            return constraints.from_regex(message.regex, model.token_bytes)
        if kind == "choices":
            _check_can_be_spelled(message.choices, model)
            return constraints.from_choices(list(message.choices.texts), model.token_bytes)
        if kind == "allowed_characters":
            return constraints.from_allowed_characters(
                message.allowed_characters, model.token_bytes
            )
    except model_errors.InvalidConstraint as error:
        raise InvalidRequest(f"constraint.{error.field}", error.value, error.allowed) from error
    raise InvalidRequest(
        "constraint.kind", Described("unset"), "regex, choices or allowed_characters"
    )


def _check_can_be_spelled(choices: pb.Choices, model: LoadedModel) -> None:
    reader = TextReader(model.vocabulary, 0)
    for index, text in enumerate(choices.texts):
        field = f"constraint.choices.texts[{index}]"
        try:
            reader.text_ids(text, field)
        except InvalidText as error:  # its advice is for prompts
            allowed = "made of characters in the model's vocabulary"
            raise InvalidRequest(field, text, allowed, reason=error.reason) from error
