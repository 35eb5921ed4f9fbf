"""What is read before an answer: prompts, contexts, texts to score."""

from collections.abc import Callable

import numpy as np
from torch import Tensor

from charlm_model.sampling.draw import logprobs_from
from charlm_model.snapshot import Snapshot
from charlm_model.state import State
from charlm_server.engine.job import Outbox
from charlm_server.engine.scoring import (
    NextDistribution,
    NextDistributionJob,
    ScorePart,
    ScoringJob,
)
from charlm_server.engine.search import SearchJob
from charlm_server.engine.sequence import GenerationJob, Sequence
from charlm_server.engine.token_columns import (
    TokenColumns,
    columns_of,
)


class PromptReader:
    """Reads a job's prompt, once for all of its outputs."""

    def __init__(
        self, job: GenerationJob, on_read: Callable[[GenerationJob, State, Tensor], None]
    ) -> None:
        self._job, self._on_read = job, on_read

    @property
    def ids(self) -> list[int]:
        return self._job.prompt_ids

    @property
    def snapshot(self) -> Snapshot | None:
        return self._job.snapshot

    @property
    def is_over(self) -> bool:
        return self._job.is_over

    def accept(self, logits_TV: Tensor, start: int) -> None:
        """Only what follows the last token counts."""

    def done(self, state: State | None, logits_1V: Tensor) -> None:
        assert state is not None
        self._on_read(self._job, state, logits_1V)


class ReceivedReader:
    """Reads a prompt and what was received of one output: nothing is drawn anew."""

    def __init__(
        self,
        sequence: Sequence,
        on_received: Callable[[Sequence, TokenColumns], None],
        on_read: Callable[[Sequence, State, Tensor], None],
    ) -> None:
        self._sequence, self._on_received, self._on_read = sequence, on_received, on_read
        self._num_known = len(sequence.job.prompt_ids)
        self.ids = sequence.job.prompt_ids + sequence.received_ids
        self.snapshot = sequence.job.snapshot

    @property
    def is_over(self) -> bool:
        return self._sequence.is_over

    def accept(self, logits_TV: Tensor, start: int) -> None:
        """Logits after the prompt's last token and later ones are those of received tokens."""
        first = max(self._num_known - 1, start)
        stop = min(start + len(logits_TV), len(self.ids) - 1)
        if first < stop:
            self._sequence.retrace(self.ids[first + 1 : stop + 1])
            ids_T = np.array(self.ids[first + 1 : stop + 1], dtype=np.int64)
            returns = self._sequence.job.returns
            columns = columns_of(logits_TV[first - start : stop - start], ids_T, returns)
            self._on_received(self._sequence, self._sequence.as_sampled(columns))

    def done(self, state: State | None, logits_1V: Tensor) -> None:
        assert state is not None
        self._on_read(self._sequence, state, logits_1V)


class ContextReader:
    """Reads what comes before an inquiry."""

    def __init__(self, job: SearchJob, on_read: Callable[[SearchJob, State, Tensor], None]) -> None:
        self._job, self._on_read = job, on_read

    @property
    def ids(self) -> list[int]:
        return self._job.context_ids

    @property
    def snapshot(self) -> Snapshot | None:
        return self._job.snapshot

    @property
    def is_over(self) -> bool:
        return self._job.is_over

    def accept(self, logits_TV: Tensor, start: int) -> None:
        """Only what follows the last token counts."""

    def done(self, state: State | None, logits_1V: Tensor) -> None:
        assert state is not None
        self._on_read(self._job, state, logits_1V)


class ItemReader:
    """Reads one item; every token of the continuation is scored by what precedes it."""

    def __init__(self, job: ScoringJob, index: int, outbox: Outbox) -> None:
        item = job.items[index]
        self._job, self._index, self._outbox = job, index, outbox
        self.snapshot = item.snapshot
        self._targets = np.array(item.continuation_ids, dtype=np.int64)
        self._first = len(item.context_ids) - 1  # the token after which the first target stands
        self._ids = item.context_ids + item.continuation_ids[:-1]
        if not item.continuation_ids:
            self._ids = item.context_ids[:1]  # nothing to score, so nothing worth reading

    @property
    def ids(self) -> list[int]:
        return self._ids

    @property
    def is_over(self) -> bool:
        return self._job.is_over

    def accept(self, logits_TV: Tensor, start: int) -> None:
        skipped = max(self._first - start, 0)
        if skipped >= len(logits_TV) or not len(self._targets):
            return  # all of it is context
        position = start + skipped - self._first
        ids_T = self._targets[position : position + len(logits_TV) - skipped]
        columns = columns_of(logits_TV[skipped:], ids_T, self._job.returns)
        part = ScorePart(
            item=self._index,
            position=position,
            columns=columns,
            is_greedy=bool((logits_TV[skipped:].numpy().argmax(axis=-1) == ids_T).all()),
            num_bytes=len(columns) * self._job.bytes_per_token,
        )
        self._outbox.put(self._job, part)

    def done(self, _state: State | None, _logits_1V: Tensor) -> None:
        self._job.num_open_items -= 1
        if self._job.num_open_items == 0:
            self._outbox.close(self._job)


class NextReader:
    """Reads the context and tells what may follow its last token."""

    def __init__(self, job: NextDistributionJob, outbox: Outbox) -> None:
        self._job, self._outbox = job, outbox

    @property
    def ids(self) -> list[int]:
        return self._job.context_ids

    @property
    def snapshot(self) -> Snapshot | None:
        return self._job.snapshot

    @property
    def is_over(self) -> bool:
        return self._job.is_over

    def accept(self, logits_TV: Tensor, start: int) -> None:
        """Only what follows the last token counts."""

    def done(self, _state: State | None, logits_1V: Tensor) -> None:
        part = NextDistribution(logprobs_from(logits_1V.numpy())[0])
        self._outbox.put(self._job, part, closes=True)
