"""The constraint of a request to the automaton that holds an output to it."""

import asyncio
from collections import OrderedDict

from charlm.v1 import generation_pb2
from charlm.v1 import sampling_pb2 as pb
from charlm_model import constraint as constraints
from charlm_model import errors as model_errors
from charlm_model.constraint import Constraint
from charlm_server.conversion import TextReader
from charlm_server.errors import InvalidRequest, NotOffered
from charlm_server.loaded import LoadedModel

LOCAL = (pb.CONSTRAINT_MODE_UNSPECIFIED, pb.CONSTRAINT_MODE_LOCAL_MASK)
MAX_KEPT = 16  # compiled constraints; some 16 MB each at the very most


class Compiler:
    """Compiles constraints, and keeps the last ones: the same are asked for again and again."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, bytes], Constraint] = OrderedDict()

    async def constraint_of(
        self, request: generation_pb2.GenerateRequest, model: LoadedModel
    ) -> Constraint | None:
        """None where there is none; off the loop, which serves others meanwhile."""
        if not request.HasField("constraint"):
            return None
        if request.constraint.mode not in LOCAL:
            raise NotOffered(f"constraint.mode {request.constraint.mode}")
        return await asyncio.to_thread(self.compiled, request.constraint, model)

    def compiled(self, message: pb.Constraint, model: LoadedModel) -> Constraint:
        """Runs up to a second or two. Raises InvalidRequest."""
        language = pb.Constraint()
        language.CopyFrom(message)
        for field in ("mode", "num_particles", "max_attempts"):  # the language is the same
            language.ClearField(field)
        key = model.name, language.SerializeToString(deterministic=True)
        kept = self._kept.get(key)
        if kept is None:
            kept = constraint_from(language, model)
            self._kept[key] = kept
            while len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return kept


def constraint_from(message: pb.Constraint, model: LoadedModel) -> Constraint:
    """Raises InvalidRequest with the field that cannot be."""
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
    raise InvalidRequest("constraint.kind", "unset", "a regex, choices or allowed characters")


def _check_can_be_spelled(choices: pb.Choices, model: LoadedModel) -> None:
    reader = TextReader(model, 0)
    for index, text in enumerate(choices.texts):
        reader.text_ids(text, f"constraint.choices.texts[{index}]")
