"""The engine: prefill, decoding of all rows together, and scoring, in bounded pieces.

It belongs to one thread and never waits: not for a client, a write, or the event loop.
"""

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from charlm_model.inference.batched_steps import Stepper
from charlm_model.language_model import LanguageModel
from charlm_model.snapshot import Snapshot
from charlm_model.state import State
from charlm_server.engine.batch import RowBatch
from charlm_server.engine.constrained_outputs import draw_outputs
from charlm_server.engine.decoding import burst
from charlm_server.engine.fair_sharing import FairShares
from charlm_server.engine.generation import Delta, FinishReason
from charlm_server.engine.job import Event, Job, Outbox
from charlm_server.engine.pacing import ChunkPacer, StepPacer
from charlm_server.engine.placement import Placement
from charlm_server.engine.prefill import ReadingLane
from charlm_server.engine.search import PrefixState, SearchJob, SearchQueue
from charlm_server.engine.sequence import GenerationJob, Sequence, SequenceStatus
from charlm_server.engine.token_columns import TokenColumns
from charlm_server.errors.overload import DeadlinePassed, Draining

FINISHED = SequenceStatus.FINISHED
# Shares of the target time: a burst while rows are free, so that waiting jobs can begin after it; a
# burst while prompts are read; the reading of short prompts.
BURST_SHARE, WAITING_SHARE, SHORT_PROMPT_SHARE = 0.4, 0.2, 0.5
# Decode steps that a chunk of a long prompt may delay others by; chunks vary, so up to two.
READING_STEPS = 1.0
SHORT_PROMPT = 64  # tokens
MANY_COMPLETE = 16  # if one row in so many is complete, hand over at once
MAX_PART_BYTES = 1 << 18  # of one part; a message joins parts up to its own bound


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineConfig:
    """How the engine divides its time. None of it changes a result."""

    batch_sizes: tuple[int, ...]  # batch-invariant; the largest is the capacity
    max_prefill_rows: int = 16
    max_scoring_rows: int = 32
    max_burst: int = 64
    max_chunk: int = 256  # tokens of one row in one chunk of prefill
    max_scoring_chunk: int = 1024  # the same of scoring, where no first character is awaited
    tick_target_s: float = 0.01  # of each kind of work in a tick, and between hand-overs
    threads: int | None = None  # of torch; None: its own choice

    def sizes_up_to(self, max_rows: int) -> list[int]:
        return [size for size in self.batch_sizes if size <= max_rows] or [min(self.batch_sizes)]


class Engine:
    """Owns one model's tensors. Sequences go prefill -> ready -> batch (<-> parked) -> out."""

    def __init__(
        self,
        model: LanguageModel,
        token_bytes: list[bytes],
        config: EngineConfig,
        *,
        clock: Callable[[], float] = time.monotonic,
        work_clock: Callable[[], float] = time.thread_time,
    ) -> None:
        self._model, self._token_bytes, self._config = model, token_bytes, config
        self.clock = clock
        # Costs are measured in processor time: waits for other threads would make steps look slow,
        # bursts short and messages many, and so the event loop busier still.
        self._work_clock = work_clock
        self.outbox = Outbox()
        self._decode_pacer = StepPacer(config.max_burst)
        self._prefill_pacer = ChunkPacer(config.max_chunk)
        self._scoring_pacer = ChunkPacer(config.max_scoring_chunk)
        self.num_sampled_tokens = 0  # by rows of the batch, since the start
        self.num_pieces = 0  # of work of any kind
        self.num_steps = 0  # of the batch, since the start
        self.reset()

    def reset(self) -> None:
        """Forget all work, without ending its jobs."""
        config = self._config
        self._batch = RowBatch(self._model, list(config.batch_sizes))
        self.prefill = ReadingLane(
            self._model, config.sizes_up_to(config.max_prefill_rows), keeps_state=True
        )
        self.scoring = ReadingLane(
            self._model, config.sizes_up_to(config.max_scoring_rows), keeps_state=False
        )
        self.placement = Placement(self._batch, self.clock)
        self._generations: list[GenerationJob] = []
        self._scorings: list[Job] = []  # and searches: jobs without rows
        self._searches = SearchQueue(self.outbox)
        self._stepper = Stepper(self._model, config.batch_sizes)
        self._handed_over_at = -math.inf

    def enter_thread(self) -> None:
        """Called once by the thread that runs the ticks: torch sets threads per thread."""
        if self._config.threads is not None:
            torch.set_num_threads(self._config.threads)

    # --- jobs ---

    def begin(self, job: Job) -> None:
        """Work on a job from now on."""
        job.started_at = self.clock()
        if isinstance(job, GenerationJob):
            self._generations.append(job)
        else:
            self._scorings.append(job)
        job.begin(self)

    # --- for jobs, see JobEngine ---

    def search(self, job: Job, state: State | None, logits_1V: Tensor) -> None:
        assert state is not None
        start = PrefixState(self._stepper, state.clone(), logits_1V)
        if isinstance(job, GenerationJob):
            job.prefilled_at = self.clock()
            for sequence in job.sequences:
                if sequence.end_state is not None:
                    sequence.end_state.keep(0, state, logits_1V)
            self._searches.add(job, draw_outputs(job, start, self.accept))
        elif isinstance(job, SearchJob):
            self._searches.ask(job, start)

    def accept(self, sequence: Sequence, columns: TokenColumns) -> None:
        """Put out a sequence's tokens in parts that fit a message."""
        per_part = max(1, MAX_PART_BYTES // sequence.job.bytes_per_token)
        for start in range(0, len(columns), per_part):
            if sequence.status is not FINISHED:
                is_all = len(columns) <= per_part
                part = columns if is_all else columns[start : start + per_part]
                self._put(sequence, sequence.accept(part, self._token_bytes, self.clock()))

    # --- progress ---

    @property
    def num_running(self) -> int:
        """Live rows of the batch."""
        return len(self._batch.sequences)

    @property
    def num_parked(self) -> int:
        return len(self.placement.parked)

    @property
    def capacity(self) -> int:
        return self._batch.capacity

    @property
    def row_shares(self) -> FairShares:
        """How callers share the rows, once all jobs that have begun are ready."""
        wanted = Counter(
            sequence.job.caller
            for job in self._generations
            if job.num_rows
            for sequence in job.sequences
            if sequence.status in (SequenceStatus.WAITING, SequenceStatus.RUNNING)
        )
        return FairShares(wanted, self.capacity)

    @property
    def scoring_shares(self) -> FairShares:
        """How callers share the jobs that take no row of the batch."""
        searches = [job for job in self._generations if not job.num_rows]
        jobs = Counter(job.caller for job in [*self._scorings, *searches])
        return FairShares(jobs, self._config.max_scoring_rows)

    @property
    def seconds_per_prompt_token(self) -> float:
        """As measured lately; 0 before anything was read."""
        return self._prefill_pacer.seconds_per_step

    @property
    def seconds_per_step(self) -> float:
        """Of the batch, as measured lately; 0 before anything was decoded."""
        return self._decode_pacer.seconds_per_step

    @property
    def has_work(self) -> bool:
        """Whether a tick would do something now."""
        return bool(
            self._batch.sequences
            or self.placement.can_go_on
            or self.prefill.num_readers
            or self.scoring.num_readers
            or self._searches.num
            or any(job.is_over for job in [*self._generations, *self._scorings])
        )

    @property
    def next_deadline(self) -> float:
        """When a tick is due even without work, to end parked sequences in time."""
        return min(
            (parked.sequence.job.ends_at for parked in self.placement.parked), default=float("inf")
        )

    # --- one tick ---

    @torch.inference_mode()
    def tick(self, *, kept_s: float = 0.0) -> list[Event]:
        """Do a bounded piece of each kind of work; returns what there is to deliver.

        First tokens are handed over at once. Later tokens are collected, because delivery costs
        more than sampling: for `kept_s`, or a tick's target time if that is longer.
        """
        self._drop_over(self.clock())
        self.placement.unpark()
        self._read_prompts()
        has_new_rows = self._fill_rows()
        self._decode(has_new_rows)
        if self._is_hand_over_due(kept_s):
            self._hand_over()
        self._score()
        self._search()
        return self.outbox.take()

    def fail_all(self, error: Exception) -> list[Event]:
        """End all jobs with the error of a failed tick, and start empty."""
        for job in [*self._generations, *self._scorings]:
            if not job.is_over:
                self.outbox.close(job, error)
        self.reset()
        return self.outbox.take()

    @torch.inference_mode()
    def stop_all(self) -> list[Event]:
        """End every job now: generations with what they have, others with an error."""
        self._hand_over()
        for generation in self._generations:
            self._end(generation, FinishReason.DRAINED)
            if not generation.is_over:  # a state was being read
                self.outbox.close(generation, Draining())
        for scoring in self._scorings:
            if not scoring.is_over:
                self.outbox.close(scoring, Draining())
        self.reset()
        return self.outbox.take()

    def _drop_over(self, now: float) -> None:
        """Free the rows of what ended, was cancelled or ran out of time."""
        live = self._batch.sequences
        if any(each.job.ends_at <= now or each.status is FINISHED for each in live):
            self._hand_over()
        for generation in self._generations:
            if generation.ends_at <= now:
                self._end(generation, FinishReason.TIME_LIMIT)
            if generation.deadline <= now and not generation.is_over:  # a state was being read
                self.outbox.close(generation, DeadlinePassed(now - generation.submitted_at))
        for scoring in self._scorings:
            if scoring.deadline <= now and not scoring.is_over:
                self.outbox.close(scoring, DeadlinePassed(now - scoring.submitted_at))
        self._generations = [job for job in self._generations if not job.is_over]
        self._scorings = [job for job in self._scorings if not job.is_over]
        self.placement.drop_over()

    def _end(self, job: GenerationJob, reason: FinishReason) -> None:
        for sequence in job.sequences:
            if sequence.status is not FINISHED:
                self._put(sequence, sequence.end(reason, self.clock()))

    def _read_prompts(self) -> None:
        if self.prefill.num_readers:
            is_short = self.prefill.longest_left <= SHORT_PROMPT
            self._read(self.prefill, self._prefill_pacer, self._reading_target_s(is_short))

    def _score(self) -> None:
        if self.scoring.num_readers:
            self._read(self.scoring, self._scoring_pacer, self._reading_target_s())

    def _read(self, lane: ReadingLane, pacer: ChunkPacer, target_s: float) -> None:
        started = self._work_clock()
        num_steps = lane.read_chunk(pacer.num_steps(target_s))
        if num_steps:
            self.num_pieces += 1
            pacer.record(num_steps, self._work_clock() - started)

    def _reading_target_s(self, is_short: bool = False) -> float:
        """While rows decode, a chunk may delay them by at most two steps.

        Short prompts are read in one chunk: in pieces they would keep bursts short for longer.
        """
        if not self._batch.sequences:
            return self._config.tick_target_s
        least_s = SHORT_PROMPT_SHARE * self._config.tick_target_s if is_short else 0.0
        return max(READING_STEPS * self._decode_pacer.seconds_per_step, least_s)

    def _search(self) -> None:
        if not self._searches.num:
            return
        ends_at = self._work_clock() + self._reading_target_s()
        self._searches.work_on(lambda: self._work_clock() >= ends_at)
        self.num_pieces += 1

    def _fill_rows(self) -> bool:
        """Give rows to ready sequences, and sample and hand over their first tokens."""
        num_new_rows = self.placement.place_ready(hand_over_all=self._hand_over)
        if num_new_rows:
            self._burst(1)
            self._hand_over_rows(len(self._batch.sequences) - num_new_rows)
        return bool(num_new_rows)

    def _decode(self, has_new_rows: bool) -> None:
        """The tick's burst. It is left out if it would delay first tokens for long."""
        target_s = self._burst_share(has_new_rows) * self._config.tick_target_s
        is_long = self._decode_pacer.seconds_per_step > target_s
        if self._batch.num_missing > 0 and not (has_new_rows and is_long):
            self._burst(min(self._decode_pacer.num_steps(target_s), self._batch.num_missing))

    def _burst_share(self, has_new_rows: bool) -> float:
        if has_new_rows or self.prefill.num_readers:
            return WAITING_SHARE
        return BURST_SHARE if self._batch.num_free else 1.0

    def _burst(self, num_steps: int) -> None:
        started = self._work_clock()
        num_steps = burst(self._batch, num_steps)
        self._batch.keep_states()
        self._decode_pacer.record(num_steps, self._work_clock() - started)
        self.num_pieces += 1
        self.num_sampled_tokens += num_steps * len(self._batch.sequences)
        self.num_steps += num_steps

    def _is_hand_over_due(self, kept_s: float) -> bool:
        """Whether enough work was done since the last one; waits for other threads do not count.

        Tokens are not collected for long while many complete rows keep others from beginning.
        """
        if self._batch.num_missing <= 0:
            return True
        since_s = self._work_clock() - self._handed_over_at
        if self._batch.num_complete * MANY_COMPLETE >= len(self._batch.sequences):
            kept_s = 0.0
        return since_s >= max(kept_s, self._config.tick_target_s)

    def _hand_over(self) -> None:
        """Hand over all that rows sampled; finished and slow rows leave the batch."""
        self._hand_over_rows(0)
        self._handed_over_at = self._work_clock()
        self.placement.drop_over()
        self.placement.park_slow()

    def _hand_over_rows(self, first_row: int) -> None:
        """Hand over what the rows from that one on sampled."""
        columns_by_row = self._batch.backlog.take(first_row)
        for sequence, columns in zip(
            self._batch.sequences[first_row:], columns_by_row, strict=False
        ):
            self.accept(sequence, columns)

    def _put(self, sequence: Sequence, deltas: list[Delta]) -> None:
        for delta in deltas:
            if delta.finish is None:
                if delta.data or len(delta.columns):
                    self.outbox.put(sequence.job, delta)
            elif sequence.end_state is None or delta.finish.reason.is_cut_short:
                self._put_last(sequence.job, delta)
            else:
                self._read_to_end(sequence, delta)

    def _put_last(self, job: GenerationJob, delta: Delta) -> None:
        """The last delta of one output."""
        job.num_unanswered -= 1
        is_last = job.num_unanswered == 0
        self.outbox.put(job, replace(delta, is_last=is_last), closes=is_last)

    def _read_to_end(self, sequence: Sequence, delta: Delta) -> None:
        """The last delta waits for the state at the end."""
        job, end_state = sequence.job, sequence.end_state
        assert end_state is not None

        def put(state: State | None, logits_1V: Tensor) -> None:
            assert state is not None
            snapshot = Snapshot.of(state, logits_1V, end_state.num_tokens)
            job.end_states[sequence.index] = snapshot
            self._put_last(job, delta)

        self.prefill.add(sequence.end_reader(put), job.caller)
