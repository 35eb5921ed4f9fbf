"""A served model in the lm-evaluation-harness, with exact log-likelihoods.

Needs the extra `harness`; nothing else of the client imports it.

    lm_eval.simple_evaluate(model=CharlmLM("127.0.0.1:50051", model="shakespeare"), tasks=[...])
"""

from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from charlm_client.security import Security
from charlm_client.sync.client import SyncClient
from charlm_client.types import Sampling, Stopping

DEFAULT_MAX_TOKENS = 256
LINES_PER_CALL = 64


class CharlmLM(LM):  # type: ignore[misc]  # the harness has no types
    """Texts of any length are scored from their start, continuations after their context.

    To a model of lines every line of a text is a text of its own, and a line end is its end.
    """

    def __init__(
        self,
        server: str,
        *,
        model: str = "",
        timeout_s: float = 600.0,
        replace_unknown: bool = False,
        security: Security | None = None,
    ) -> None:
        super().__init__()
        self._client = SyncClient(server, timeout_s=timeout_s, security=security)
        self._model = model or self._client.only_model()
        self._is_of_lines = self._client.get_model(self._model).unit == "line"
        self._replace_unknown = replace_unknown

    def loglikelihood(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[tuple[float, bool]]:
        """(nats, whether it is the greedy continuation) of each (context, continuation)."""
        answers = []
        for context, continuation in (request.args for request in requests):
            (score,) = self._client.score(
                [continuation],
                model=self._model,
                context=context,
                replace_unknown=self._replace_unknown,
            )
            answers.append((score.total_logprob, score.is_greedy))
        return answers

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """Nats of each text from its start; no window cuts its context, no length is too long."""
        return [self._whole(request.args[0]) for request in requests]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """A continuation of each context, up to one of its stop texts."""
        return [self._continued(*request.args) for request in requests]

    def _whole(self, text: str) -> float:
        if not text:
            return 0.0
        if self._is_of_lines:
            *ended, rest = text.split("\n")
            return self._lines(ended, are_ended=True) + self._lines([rest] if rest else [])
        stream = self._client.stream_score(
            text.encode(),
            model=self._model,
            returns="total",
            replace_unknown=self._replace_unknown,
        )
        return stream.read_total().total_logprob

    def _lines(self, lines: list[str], *, are_ended: bool = False) -> float:
        nats = 0.0
        for start in range(0, len(lines), LINES_PER_CALL):
            scores = self._client.score(
                lines[start : start + LINES_PER_CALL],
                model=self._model,
                end_of_text=are_ended,
                replace_unknown=self._replace_unknown,
            )
            nats = sum((score.total_logprob for score in scores), start=nats)
        return nats

    def _continued(self, context: str, wish: dict[str, Any]) -> str:
        until = wish.get("until") or []
        stopping = Stopping(
            max_new_tokens=int(wish.get("max_gen_toks", DEFAULT_MAX_TOKENS)),
            stop_sequences=(until,) if isinstance(until, str) else tuple(until),
        )
        temperature = float(wish.get("temperature", 0.0)) if wish.get("do_sample") else 0.0
        generation = self._client.generate(
            context,
            model=self._model,
            sampling=Sampling(temperature=temperature, seed=0),
            stopping=stopping,
            replace_unknown=self._replace_unknown,
        )
        return generation.outputs[0].text
