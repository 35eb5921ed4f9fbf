"""The mean of the latest weights: steps at a high learning rate add mostly noise to them."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from charlm_training.state_tree import Record

# Over so much of a run, but no more than this share of what has been done of it so far.
HORIZON, YOUNG_SHARE = 0.05, 0.2
INTERVAL = 0.0025  # of a run, between two weights that are added


class WeightAverage:
    """An exponential mean of a model's weights, whose horizon is a share of the run.

    Source: Polyak & Juditsky (1992), "Acceleration of stochastic approximation by averaging".
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._mean: dict[str, Tensor] = {}
        self._at = 0.0  # the progress at which weights were last added

    def follow(self, progress: float) -> None:
        """Add the weights after a step, if the last ones are old enough."""
        if not self._mean:
            self._mean, self._at = self._own(), progress
        if progress - self._at < INTERVAL:
            return
        share = 1 - math.exp((self._at - progress) / min(HORIZON, YOUNG_SHARE * progress))
        for name, weight in self._model.state_dict().items():
            self._mean[name].lerp_(weight, share)
        self._at = progress

    def forget(self) -> None:
        """Start again: the weights were rolled back."""
        self._mean = {}

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the mean as its weights inside this block, and its own afterwards."""
        own = self._own()
        self._model.load_state_dict(self._mean or own)
        try:
            yield
        finally:
            self._model.load_state_dict(own)

    def state_dict(self) -> Record:
        return {"mean": dict(self._mean), "at": self._at}

    def load_state_dict(self, state: Record) -> None:
        self._mean = {name: weight.clone() for name, weight in state["mean"].items()}
        self._at = state["at"]

    def _own(self) -> dict[str, Tensor]:
        return copy.deepcopy(self._model.state_dict())
