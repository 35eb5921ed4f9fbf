"""A model so small that every text can be listed: the oracle of all that is exact."""

from collections.abc import Iterator
from itertools import product

import torch
from torch import Tensor

from charlm_model.config import ModelConfig
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.draw import logprobs_from
from charlm_model.state import State

LETTERS = "abc"
TOKEN_BYTES = [b"", *(letter.encode() for letter in LETTERS)]
V = len(TOKEN_BYTES)


class TinyModel(LanguageModel):
    """The next token's logits depend on the last two tokens, at random."""

    def __init__(self, seed: int = 0, scale: float = 1.5) -> None:
        super().__init__(ModelConfig(family="tiny", vocab_size=V))
        generator = torch.Generator().manual_seed(seed)
        self.logits_VVV = torch.randn(V, V, V, generator=generator) * scale

    def initial_state(self, batch_size: int) -> State:
        return State({"last": torch.zeros(batch_size, dtype=torch.int64)})

    def forward(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        return self.advance(ids_BT, state)

    @torch.inference_mode()
    def advance(self, ids_BT: Tensor, state: State) -> tuple[Tensor, State]:
        seen_BT = torch.cat([state["last"][:, None], ids_BT], dim=1)
        logits_BTV = self.logits_VVV[seen_BT[:, :-1], seen_BT[:, 1:]]
        return logits_BTV, State({"last": ids_BT[:, -1].clone()})


def logprobs_after(model: LanguageModel, ids: tuple[int, ...]) -> list[float]:
    """Natural log-probs of the next token after the start and these."""
    logits_1TV, _ = model.advance(torch.tensor([[0, *ids]]), model.initial_state(1))
    values: list[float] = logprobs_from(logits_1TV[0, -1:].numpy())[0].tolist()
    return values


def logprob(model: LanguageModel, ids: tuple[int, ...]) -> float:
    return sum(logprobs_after(model, ids[:at])[token] for at, token in enumerate(ids))


def strings(length: int) -> Iterator[tuple[int, ...]]:
    """All token strings of this length without an end of text."""
    yield from product(range(1, V), repeat=length)


def spelled(ids: tuple[int, ...]) -> str:
    return b"".join(TOKEN_BYTES[token] for token in ids).decode()


def finished(generator: Iterator[None]) -> object:
    """What a generator returns when it is run to its end."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value
