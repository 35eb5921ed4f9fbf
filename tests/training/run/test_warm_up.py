"""What comes at the end of a run is done once before its clock starts."""

from pathlib import Path
from typing import Any

import pytest
import torch

from charlm_model.kernels.autograd import packing, transformer_block
from charlm_training.planning.options import FAMILIES
from charlm_training.run.warm_up import config_of, warm_up


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_it_leaves_nothing_behind(family: str, tmp_path: Path, clock: Any) -> None:
    clock.tick_s = 0.25
    torch.manual_seed(3)
    before = torch.get_rng_state()

    seconds = warm_up(family, tmp_path, clock)

    assert seconds == 0.25
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), before)


def test_its_sizes_are_those_of_the_kernels_for_training() -> None:
    """Or they would be compiled when the clock runs."""
    lstm, transformer = config_of("lstm"), config_of("transformer")

    assert packing.supports_sizes(lstm.embedding_size, lstm.hidden_size)
    assert transformer_block.supports_sizes(transformer.hidden_size, transformer.num_heads)


def test_an_unwritable_disk_is_an_error_before_the_run(tmp_path: Path, clock: Any) -> None:
    with pytest.raises(OSError, match="No such file"):
        warm_up("ngram", tmp_path / "missing", clock)
