"""Inference requests to searches, and their results to messages."""

from collections.abc import Generator, Iterable

from charlm.v1 import inference_pb2 as pb
from charlm_model.inference import gap_filling as gaps
from charlm_model.inference.gap_filling import Gap, GapFillings
from charlm_model.inference.top_continuations import SearchLimits, TopContinuations, search
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.engine.job import FOREVER
from charlm_server.engine.search import MAX_STATE_BYTES, PrefixState, SearchJob
from charlm_server.errors.base import InvalidRequest
from charlm_server.models.registry import LoadedModel
from charlm_server.rpc.convert.context import ContextResolver
from charlm_server.rpc.convert.fields import TextReader, check_count
from charlm_server.rpc.convert.models import numerics_from
from charlm_server.rpc.convert.sampling import new_seed
from charlm_server.state_store import OwnedStates

MAX_LENGTH = 64
MAX_FILLINGS, DEFAULT_FILLINGS = 1000, 10
MAX_PARTICLES, DEFAULT_PARTICLES = 4096, 256
MAX_CONTINUATIONS, DEFAULT_CONTINUATIONS = 1000, 10
MAX_STEPS, DEFAULT_STEPS = 1_000_000, 10_000
LAST_SECONDS, LAST_SHARE = 0.5, 0.3  # before a deadline, to send the list
MAX_GAP_STEPS = 20_000_000  # tokens read for one gap


class GapQuery:
    """One FillGap request, checked."""

    def __init__(self, request: pb.FillGapRequest, model: LoadedModel, states: OwnedStates) -> None:
        """Raises InvalidRequest."""
        self._model = model
        reader = TextReader(model.vocabulary, request.unknown_characters)
        self.prefix = ContextResolver(reader, model, states).prefix(request.left, "left")
        self.right = reader.text_ids(request.right, "right")
        self.length = check_count("gap_length", request.gap_length, 1, MAX_LENGTH)
        num = request.max_fillings if request.HasField("max_fillings") else DEFAULT_FILLINGS
        self.num_fillings = check_count("max_fillings", num, 1, MAX_FILLINGS)
        self.num_particles = _num_particles(request, model)
        self.seed = request.seed if request.HasField("seed") else new_seed()
        self.num_steps = self._num_steps(len(self.right))
        self._check_size()

    def job(self, deadline: float) -> SearchJob:
        return SearchJob(
            context_ids=self.prefix.ids,
            snapshot=self.prefix.snapshot,
            num_steps=self.num_steps,
            search=self._search,
            output=self._model.output_buffer(),
            deadline=deadline,
        )

    def response(self, filled: GapFillings) -> pb.FillGapResponse:
        return pb.FillGapResponse(
            fillings=[
                pb.Filling(
                    text=_text(filling.ids, self._model),
                    token_ids=filling.ids,
                    posterior=filling.posterior,
                    total_logprob=filling.total_logprob,
                )
                for filling in filled.fillings
            ],
            is_exact=filled.effective_sample_size is None,
            log_evidence=filled.log_evidence,
            effective_sample_size=filled.effective_sample_size,
            seed=self.seed,
            model_digest=self._model.checkpoint.digest,
            numerics=numerics_from(self._model),
        )

    def _search(self, start: PrefixState) -> Generator[None, None, GapFillings]:
        gap = Gap(
            stepper=start.stepper,
            state=start.state,
            logits_1V=start.logits_1V,
            right=self.right,
            length=self.length,
        )
        return gaps.fill(
            gap,
            num_fillings=self.num_fillings,
            num_particles=self.num_particles,
            seed=self.seed,
        )

    def _num_steps(self, num_right: int) -> int:
        vocab_size = self._model.vocab_size
        return gaps.num_steps(self.length, vocab_size, num_right, self.num_particles)

    def _check_size(self) -> None:
        """Refuse a gap that would take too long, and give the longest right text that would not."""
        if self.num_steps <= MAX_GAP_STEPS:
            return
        fixed = self._num_steps(0)
        longest = (MAX_GAP_STEPS - fixed) // max(self._num_steps(1) - fixed, 1)
        if longest < 1:
            allowed = "smaller: so many particles would try too many fillings"
            raise InvalidRequest("num_particles", self.num_particles, allowed)
        allowed = f"at most {longest} tokens long for a gap of {self.length} with this vocabulary"
        raise InvalidRequest("right", len(self.right), allowed)


def _num_particles(request: pb.FillGapRequest, model: LoadedModel) -> int:
    row_bytes = model.checkpoint.model.initial_state(1).num_bytes_per_row
    most = min(MAX_PARTICLES, max(1, MAX_STATE_BYTES // max(2 * row_bytes, 1)))
    if not request.HasField("num_particles"):
        return min(DEFAULT_PARTICLES, most)
    return check_count("num_particles", request.num_particles, 1, most)


class TopContinuationsQuery:
    """One ListTopContinuations request, checked."""

    def __init__(
        self, request: pb.ListTopContinuationsRequest, model: LoadedModel, states: OwnedStates
    ) -> None:
        """Raises InvalidRequest."""
        self._model = model
        reader = TextReader(model.vocabulary, request.unknown_characters)
        self.prefix = ContextResolver(reader, model, states).prefix(request.context, "context")
        given = DEFAULT_CONTINUATIONS
        if request.HasField("num_continuations"):
            given = request.num_continuations
        self.num = check_count("num_continuations", given, 1, MAX_CONTINUATIONS)
        self.length = check_count("length", request.length, 1, MAX_LENGTH)
        steps = request.max_steps if request.HasField("max_steps") else DEFAULT_STEPS
        self.max_steps = check_count("max_steps", steps, 1, MAX_STEPS)
        self._ends_at = FOREVER

    def job(self, deadline: float) -> SearchJob:
        """Shortly before the deadline the search ends with what it has and a bound of the rest."""
        now = self._model.scheduler.now()
        self._ends_at = deadline - min(LAST_SECONDS, LAST_SHARE * (deadline - now))
        return SearchJob(
            context_ids=self.prefix.ids,
            snapshot=self.prefix.snapshot,
            num_steps=self.max_steps,
            search=self._search,
            output=self._model.output_buffer(),
            deadline=deadline,
        )

    def response(self, found: TopContinuations) -> pb.ListTopContinuationsResponse:
        return pb.ListTopContinuationsResponse(
            continuations=[
                pb.Continuation(
                    text=_text(ids, self._model), token_ids=ids, total_logprob=total_logprob
                )
                for ids, total_logprob in found.continuations
            ],
            is_complete=found.is_complete,
            missing_logprob_bound=found.missing_logprob_bound,
            num_steps=found.num_steps,
            model_digest=self._model.checkpoint.digest,
            numerics=numerics_from(self._model),
        )

    def _search(self, start: PrefixState) -> Generator[None, None, TopContinuations]:
        now = self._model.scheduler.now
        limits = SearchLimits(
            num=self.num,
            length=self.length,
            max_steps=self.max_steps,
            is_past_deadline=lambda: now() >= self._ends_at,
        )
        return search(start.stepper, start.state, start.logits_1V, limits)


def _text(ids: Iterable[int], model: LoadedModel) -> str:
    return model.vocabulary.decode([token for token in ids if token != END_OF_TEXT_ID])
