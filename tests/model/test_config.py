"""Sizes are validated, and errors name the field."""

import pytest

from charlm_model.config import ModelConfig
from charlm_model.errors import InvalidConfig


def test_a_config_survives_json() -> None:
    config = ModelConfig(family="gru", vocab_size=65, hidden_size=128, dropout=0.1, unit="line")

    assert ModelConfig.from_json(config.to_json()) == config


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vocab_size", 1),
        ("hidden_size", 0),
        ("hidden_size", 8193),
        ("num_layers", 2.0),
        ("num_heads", True),
        ("dropout", 1.0),
        ("dropout", "much"),
        ("unit", "page"),
        ("context_length", -1),
    ],
)
def test_a_wrong_value_is_named(field: str, value: object) -> None:
    data = ModelConfig(family="gru", vocab_size=5).to_json() | {field: value}

    with pytest.raises(InvalidConfig, match=field):
        ModelConfig.from_json(data)


def test_unknown_and_missing_fields_are_named() -> None:
    data = ModelConfig(family="gru", vocab_size=5).to_json()

    with pytest.raises(InvalidConfig, match="depth"):
        ModelConfig.from_json(data | {"depth": 3})
    del data["vocab_size"]
    with pytest.raises(InvalidConfig, match="vocab_size"):
        ModelConfig.from_json(data)
