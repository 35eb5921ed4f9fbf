"""Generation jobs: one prompt and its growing continuations."""

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from torch import Tensor

from charlm_model.constraints.conditional_sampling import SampledOutput
from charlm_model.sampling.params import SamplingParams
from charlm_model.snapshot import Snapshot
from charlm_model.state import State
from charlm_model.text.vocabulary import END_OF_TEXT_ID
from charlm_server.engine.detokenizer import Release, TextAssembler
from charlm_server.engine.end_states import EndState
from charlm_server.engine.generation import (
    Delta,
    Finish,
    FinishReason,
    Origin,
    Resumption,
    ShownCounts,
    Stopping,
)
from charlm_server.engine.job import Job, JobEngine
from charlm_server.engine.output_buffer import OutputBuffer
from charlm_server.engine.readers import PrefixReader
from charlm_server.engine.token_columns import (
    NO_TOKENS,
    Float32s,
    Returns,
    TokenColumns,
    columns_of,
    concat_columns,
    exact_sum,
)


@dataclass(kw_only=True, eq=False)
class GenerationJob(Job):
    """A prompt and how to continue it, `num_outputs` times."""

    prompt_ids: list[int]  # begins with the start context unless there is a snapshot
    params: SamplingParams
    seed: int
    stopping: Stopping
    returns: Returns
    num_outputs: int
    bytes_per_token: int
    max_chunk_tokens: int | None = None
    returns_states: bool = False
    output: OutputBuffer[Delta]
    resumed: dict[int, Resumption] = field(default_factory=dict)  # by index of the output
    origin: Origin | None = None
    snapshot: Snapshot | None = None  # read before the prompt
    prefilled_at: float = 0.0
    sequences: list["Sequence"] = field(init=False)
    num_unanswered: int = field(init=False)  # outputs whose last delta was not yet put out
    end_states: dict[int, Snapshot] = field(default_factory=dict)  # by index, before that delta

    def __post_init__(self) -> None:
        self.sequences = [Sequence(self, index) for index in range(self.num_outputs)]
        self.num_unanswered = self.num_open_outputs

    def begin(self, engine: JobEngine) -> None:
        again = [each for each in self.sequences if each.must_read_received]
        new = [each for each in self.sequences if not each.must_read_received]
        if len(again) < self.num_open_outputs:
            on_read = partial(engine.placement.add_read, new)
            if self.stopping.search is not None:
                on_read = partial(engine.search, self)
            reader = PrefixReader(self, self.prompt_ids, self.snapshot, on_read)
            engine.prefill.add(reader, self.caller)
        for sequence in again:
            engine.prefill.add(sequence.received_reader(engine), self.caller)

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt_ids)

    @property
    def prompt_text_ids(self) -> list[int]:
        """The prompt without its start context."""
        return self.prompt_ids if self.snapshot is not None else self.prompt_ids[1:]

    @property
    def num_text_tokens(self) -> int:
        """Of the prompt, with what a snapshot has read."""
        before = 0 if self.snapshot is None else self.snapshot.num_tokens
        return before + len(self.prompt_text_ids)

    @property
    def num_open_outputs(self) -> int:
        return sum(not sequence.has_ended for sequence in self.sequences)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt_ids) + self.num_outputs * self.stopping.max_new_tokens

    @property
    def num_used_tokens(self) -> int:
        return len(self.prompt_ids) + sum(sequence.num_sampled for sequence in self.sequences)

    @property
    def num_rows(self) -> int:
        """Constrained outputs that are sampled whole have no rows of the batch."""
        return 0 if self.stopping.search is not None else self.num_outputs


class SequenceStatus(enum.Enum):
    """Where a continuation is on its way through the engine."""

    WAITING = enum.auto()  # for its prompt to be read, or for a row of the batch
    RUNNING = enum.auto()  # in a row of the batch
    PARKED = enum.auto()  # out of the batch until its client has read more
    FINISHED = enum.auto()  # it ended, or its call did


class Sequence:
    """One continuation of a job's prompt: its status, counts and text held back."""

    def __init__(self, job: GenerationJob, index: int) -> None:
        self.job = job
        self.index = index
        self.num_sampled = 0
        self._status = SequenceStatus.WAITING
        # For the penalties: the prompt's text, and what was sampled.
        self.recent = list(job.prompt_text_ids) if job.params.is_penalizing else []
        self.guide = job.stopping.new_guide() if job.stopping.constraint is not None else None
        self._evidence: tuple[float | None, float | None] = None, None
        self.finish: Finish | None = None
        self._assembler = TextAssembler(
            job.stopping.stops,
            include_stop=job.stopping.include_stop,
            max_tokens=job.max_chunk_tokens,
        )
        self._held: TokenColumns | None = None
        self._resumed = job.resumed.get(index)
        self._shown = Shown(self._resumed)
        self._logprobs: list[Float32s] = []
        self.end_state: EndState | None = None
        if job.returns_states:
            self.end_state = EndState(job.num_text_tokens, self.received_ids)

    @property
    def is_plain(self) -> bool:
        """Whether it samples from the model's own distribution, without details."""
        job = self.job
        return job.params.is_plain and self.guide is None and not job.returns.details

    @property
    def received_ids(self) -> list[int]:
        """Ids that the client has from an earlier stream."""
        return [] if self._resumed is None else self._resumed.received_ids

    @property
    def must_read_received(self) -> bool:
        """Constrained outputs that are sampled whole are sampled again instead."""
        return bool(self.received_ids and not self.has_ended and self.job.num_rows)

    @property
    def has_ended(self) -> bool:
        """In this stream or in the one that it resumes."""
        return self.finish is not None or (self._resumed is not None and self._resumed.has_ended)

    @property
    def status(self) -> SequenceStatus:
        """FINISHED follows from the sequence and its job; placement sets the others."""
        return SequenceStatus.FINISHED if self.is_over else self._status

    def move_to(self, status: SequenceStatus) -> None:
        self._status = status

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be done for it."""
        return self.has_ended or self.job.is_over

    @property
    def num_missing(self) -> int:
        """How many more tokens it may sample."""
        return self.job.stopping.max_new_tokens - self.num_sampled

    def accept(self, sampled: TokenColumns, token_bytes: list[bytes], now: float) -> list[Delta]:
        """Take sampled tokens, up to the end of the output; the rest is discarded."""
        kept, reason = self._kept(sampled)
        releases, stopped = self._assembler.feed([token_bytes[token] for token in kept.ids_T])
        self._held = concat_columns([self._held, kept]) if self._held is not None else kept
        if stopped is not None:
            self.num_sampled += stopped.num_tokens
            return self._end(FinishReason.STOP, releases, now, stopped.stop)
        self.num_sampled += len(kept) + (reason is FinishReason.END_OF_TEXT)
        if reason is None:
            return [self._delta(release) for release in releases]
        return self._end(reason, releases + self._assembler.finish(), now)

    def end_reader(self, on_read: Callable[[State | None, Tensor], None]) -> PrefixReader:
        """Reads from the last kept state to the end of what was shown."""
        assert self.end_state is not None
        job, unread = self.job, self.end_state.unread()
        if unread is None:
            ids = job.prompt_ids + self.end_state.shown_ids
            return PrefixReader(job, ids, job.snapshot, on_read)
        snapshot, ids = unread
        return PrefixReader(job, ids, snapshot, on_read)

    def received_reader(self, engine: JobEngine) -> PrefixReader:
        """Reads the prompt and the received tokens, which are not sampled again."""
        ids = self.job.prompt_ids + self.received_ids
        num_known = len(self.job.prompt_ids)

        def accept(logits_TV: Tensor, start: int) -> None:
            """Logits after the prompt's last token and later ones are those of received tokens."""
            first = max(num_known - 1, start)
            stop = min(start + len(logits_TV), len(ids) - 1)
            if first < stop:
                self.retrace(ids[first + 1 : stop + 1])
                ids_T = np.array(ids[first + 1 : stop + 1], dtype=np.int64)
                logits_TV = logits_TV[first - start : stop - start]
                columns = columns_of(logits_TV, ids_T, self.job.returns)
                engine.accept(self, self.as_sampled(columns))

        on_read = partial(engine.placement.add_read, [self])
        return PrefixReader(self, ids, self.job.snapshot, on_read, accept)

    def retrace(self, ids: list[int]) -> None:
        """Bring penalties and guide to where the received tokens lead, before they are accepted."""
        if self.job.params.is_penalizing:
            self.recent += ids
        if self.guide is not None:
            for token in ids:
                self.guide.take(token)

    def as_sampled(self, columns: TokenColumns) -> TokenColumns:
        """Received tokens as sampled ones, with 0 for what only sampling knows."""
        unknown_T = np.zeros(len(columns), np.float32)
        masses_T = unknown_T if self.guide is not None else None
        return replace(columns, sampling_logprobs_T=unknown_T, constraint_log_masses_T=masses_T)

    def adopt(self, drawn: SampledOutput) -> None:
        """Take the guide and the evidence of an output sampled whole, before its tokens."""
        self.guide = drawn.guide
        self._evidence = drawn.log_evidence, drawn.effective_sample_size

    def end(self, reason: FinishReason, now: float) -> list[Delta]:
        """End it early, with all text that was held back."""
        return self._end(reason, self._assembler.finish(), now)

    def _kept(self, sampled: TokenColumns) -> tuple[TokenColumns, FinishReason | None]:
        room, last = self.num_missing, FinishReason.LENGTH
        if self.guide is not None and self.guide.completed_at is not None:
            room = self.guide.completed_at - self.num_sampled
            last = FinishReason.CONSTRAINT_COMPLETE
        if not self.job.stopping.ignore_end_of_text:
            (ends,) = np.nonzero(sampled.ids_T[:room] == END_OF_TEXT_ID)
            if len(ends):
                return sampled[: ends[0]], FinishReason.END_OF_TEXT
        if len(sampled) < room:
            return sampled, None
        return sampled[:room], last

    def _delta(self, release: Release) -> Delta:
        columns = self._take_held(release.num_tokens)
        self._logprobs.append(columns.logprobs_T)
        release, columns = self._shown.new_of(release, columns)
        if self.end_state is not None:
            self.end_state.show(columns.ids_T.tolist())
        return Delta(
            index=self.index,
            shown=self._shown.counts,
            data=release.data,
            text=release.text,
            columns=columns,
            num_bytes=len(columns) * self.job.bytes_per_token + 2 * len(release.data) + 64,
        )

    def _take_held(self, num_tokens: int) -> TokenColumns:
        if self._held is None:
            return NO_TOKENS
        held = self._held
        if num_tokens == len(held):
            self._held = None
            return held
        self._held = held[num_tokens:]
        return held[:num_tokens]

    def _end(
        self, reason: FinishReason, releases: list[Release], now: float, stop: bytes | None = None
    ) -> list[Delta]:
        deltas = [self._delta(release) for release in releases]
        self.finish = Finish(
            reason=reason,
            matched_stop=stop,
            num_new_tokens=self.num_sampled,
            total_logprob=exact_sum(self._logprobs),
            queued_s=max(self.job.started_at - self.job.submitted_at, 0.0),
            prefill_s=max(self.job.prefilled_at - self.job.started_at, 0.0),
            decode_s=max(now - self.job.prefilled_at, 0.0) if self.job.prefilled_at else 0.0,
            log_evidence=self._evidence[0],
            effective_sample_size=self._evidence[1],
        )
        deltas[-1] = replace(deltas[-1], finish=self.finish)
        return deltas


class Shown:
    """Counts shown text, and finds the part of a release that the client does not have."""

    def __init__(self, resumed: Resumption | None) -> None:
        self.counts = ShownCounts()
        self._resumed = resumed

    def new_of(self, release: Release, columns: TokenColumns) -> tuple[Release, TokenColumns]:
        """The part of a release that is new to the client; all of it is counted."""
        before = self.counts
        self.counts = ShownCounts(
            before.num_tokens + len(columns),
            before.num_bytes + len(release.data),
            before.num_characters + len(release.text),
        )
        resumed = self._resumed
        if resumed is None:
            return release, columns
        columns = columns[max(len(resumed.received_ids) - before.num_tokens, 0) :]
        data = release.data[max(resumed.num_bytes - before.num_bytes, 0) :]
        text = release.text[max(resumed.num_characters - before.num_characters, 0) :]
        return Release(data, text, len(columns)), columns
