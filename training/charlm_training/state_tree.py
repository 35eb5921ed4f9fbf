"""Nested values with tensors as JSON and safetensors, instead of a pickle.

A value is None, a bool, int, float, str or tensor, or a list, tuple or dict of values.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

Record = dict[str, Any]
PLAIN = (bool, int, float, str)
TENSOR, TUPLE, PAIRS = "tensor", "tuple", "pairs"


def flatten(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The value as JSON; its tensors are added to `tensors`, each as a copy of its own."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy, because tied weights share memory and safetensors stores no aliases.
        tensors[name] = value.detach().contiguous().clone()
        return {TENSOR: name}
    if isinstance(value, dict):
        return {PAIRS: [[flatten(k, tensors), flatten(v, tensors)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {TUPLE: [flatten(each, tensors) for each in value]}
    if isinstance(value, list):
        return [flatten(each, tensors) for each in value]
    assert value is None or isinstance(value, PLAIN), type(value)
    return value


def unflatten(json_value: Any, tensors: dict[str, Tensor]) -> Any:
    """The inverse of `flatten`. Raises KeyError for a missing tensor."""
    if isinstance(json_value, list):
        return [unflatten(each, tensors) for each in json_value]
    if not isinstance(json_value, dict):
        return json_value
    ((kind, content),) = json_value.items()
    if kind == TENSOR:
        return tensors[content]
    values = [unflatten(each, tensors) for each in content]
    return tuple(values) if kind == TUPLE else dict(values)
