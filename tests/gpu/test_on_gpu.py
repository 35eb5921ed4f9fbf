"""The checks of `benchmarks/serving_gpu.py` on a real GPU, for small models."""

from collections.abc import Callable

import pytest
import torch
from gpu_checks import checks_of

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.gpu.placement import on_device
from charlm_model.language_model import LanguageModel

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is here"),
]
SIZES: dict[str, dict[str, int]] = {
    "rnn": {"hidden_size": 100},
    "gru": {"hidden_size": 96, "kernel_size": 3, "pair_rows": 500},
    "lstm": {"hidden_size": 128},
    "transformer": {"hidden_size": 96, "num_heads": 4, "context_length": 40, "kernel_size": 4},
}
CHECKS = (
    "close to the CPU",
    "the same bits in any batch",
    "the same bits in any chunks",
    "draws and log-probs of the CPU's sampling",
    "certified",
    "waits are work",
)


@pytest.fixture(scope="module", params=SIZES)
def checks(request: pytest.FixtureRequest) -> dict[str, Callable[[], str]]:
    """Those of one family."""
    sizes = SIZES[request.param]
    config = ModelConfig(family=request.param, vocab_size=70, num_layers=2, **sizes)
    torch.manual_seed(1)
    model: LanguageModel = build(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return dict(checks_of(model.eval(), on_device(model, torch.device("cuda", 0))))


@pytest.mark.parametrize("name", CHECKS)
def test_the_constraint_holds(name: str, checks: dict[str, Callable[[], str]]) -> None:
    checks[name]()
