"""How fast a model would be if it were nothing but its matrix products."""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch.nn.functional import linear

from charlm_model.language_model import LanguageModel

NUM_ROWS = 4096  # for which a product is as fast as it gets
NUM_STEPS = 1000  # of products with one row
Clock = Callable[[], float]
Work = Callable[[], object]


class Products:
    """Every weight matrix of a model but the embeddings, which are only looked up."""

    def __init__(self, model: LanguageModel) -> None:
        weights = {
            name: weight
            for name, weight in model.named_parameters()
            if weight.ndim == 2 and "embedding" not in name
        }
        self._all = [Product(weight) for weight in weights.values()]
        self._of_state = [Product(each) for name, each in weights.items() if "weight_hh" in name]
        self._others = [Product(each) for name, each in weights.items() if "weight_hh" not in name]

    @torch.inference_mode()
    def token_s(self) -> tuple[float, float]:
        """Seconds of one token among many, by default products and by packed ones."""
        default_s = sum(best_s(product.default) for product in self._all)
        packed_s = sum(best_s(partial(each.packed, each.rows)) for each in self._all)
        return default_s / NUM_ROWS, packed_s / NUM_ROWS

    @torch.inference_mode()
    def step(self, num_tokens: int) -> None:
        """Those with the state row by row, as one text asks for; the others all at once."""
        for _ in range(num_tokens):
            for product in self._of_state:
                product.packed(product.row)
        for product in self._others:
            product.packed(product.rows[:num_tokens])


class Product:
    """One weight matrix, and numbers to multiply it with."""

    def __init__(self, weight_NK: torch.Tensor) -> None:
        self.weight_NK = weight_NK.detach()
        self._packed = torch.ops.mkldnn._reorder_linear_weight(self.weight_NK, NUM_ROWS)
        self.rows = torch.ones(NUM_ROWS, weight_NK.shape[1])
        self.row = self.rows[:1]

    def default(self) -> torch.Tensor:
        return linear(self.rows, self.weight_NK)

    def packed(self, rows: torch.Tensor) -> torch.Tensor:
        """oneDNN's, with the weight laid out once."""
        product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, self._packed, None, "none", [], ""
        )
        return product


def best_s(work: Work) -> float:
    """The least of several is the least disturbed."""
    return min(seconds_of(work, time.thread_time) for _ in range(5))


def seconds_of(work: Work, clock: Clock) -> float:
    started = clock()
    work()
    return clock() - started
