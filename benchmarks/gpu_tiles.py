"""Times tiles for numbers of rows; `charlm_model.kernels.triton.tiling` is chosen from these.

    python benchmarks/gpu_tiles.py
    python benchmarks/gpu_tiles.py 64 --no-timing    # compiles what that number of rows needs

Microseconds of one kernel within a CUDA graph of many, for an LSTM layer of 256 and a product of
384 by 1,536. All tiles must give the same bits, which is what lets them be chosen freely.
"""

import hashlib
import traceback
from collections.abc import Callable
from typing import Annotated

import torch
import typer
from torch import Tensor

from charlm_model.config import ModelConfig
from charlm_model.families.recurrent import RecurrentModel
from charlm_model.families.registry import build
from charlm_model.gpu import recurrent
from charlm_model.gpu.weights import MatmulOptions, gpu_linear
from charlm_model.kernels.triton.tiling import Tile, Tiling

NUM_LAUNCHES, NUM_REPLAYS = 100, 5
Prepared = tuple[Callable[[], None], Tensor]  # a launch, and its result tensor
Prepare = Callable[[int, Tiling, torch.device], Prepared]
# Rows of the batch, and of the tile, its columns, depth, warps and stages.
CANDIDATES = {
    1: (
        (1, 16, 32, 1, 4), (1, 16, 32, 4, 4), (1, 16, 64, 2, 3), (1, 32, 32, 4, 3),
        (1, 8, 64, 1, 4), (1, 64, 32, 4, 4),
    ),
    64: (
        (16, 16, 32, 4, 3), (16, 32, 32, 4, 3), (16, 32, 64, 4, 3), (16, 64, 32, 4, 3),
        (32, 32, 32, 4, 3), (8, 32, 32, 2, 4),
    ),
    1024: (
        (64, 64, 32, 4, 3), (64, 64, 16, 4, 4), (32, 64, 32, 4, 3), (128, 64, 16, 8, 3),
        (128, 128, 16, 8, 3),
    ),
}  # fmt: skip


def main(
    num_rows: Annotated[list[int] | None, typer.Argument(help="All if none is given.")] = None,
    timing: bool = True,
) -> None:
    device = torch.device("cuda")
    if timing:
        print(f"an empty kernel: {microseconds(lambda: torch.cuda._sleep(0)):.2f} us", flush=True)
    for num in num_rows or CANDIDATES:
        for sizes in CANDIDATES[num]:
            for name, prepare in (("lstm layer", lstm_layer), ("384 x 1536", wide_product)):
                tell_of(name, prepare, num, Tile(*sizes, at_least=1), device, timing)


def tell_of(
    name: str, prepare: Prepare, num_rows: int, tile: Tile, device: torch.device, timing: bool
) -> None:
    try:
        launch, result = prepare(num_rows, Tiling((tile,)), device)
        launch()
        digest = hashlib.sha256(result.cpu().contiguous().numpy().tobytes()).hexdigest()[:8]
        taken = microseconds(launch) if timing else 0.0
        print(f"{num_rows:5} {name} {taken:8.2f} us {digest} {tile}", flush=True)
    except Exception:  # noqa: BLE001 - another tile may do
        print(f"{num_rows:5} {name} failed {tile}")
        traceback.print_exc()


def lstm_layer(num_rows: int, tiling: Tiling, device: torch.device) -> Prepared:
    torch.manual_seed(0)
    config = ModelConfig(family="lstm", vocab_size=65, embedding_size=256, hidden_size=256)
    model = build(config)
    assert isinstance(model, RecurrentModel)
    workspace = recurrent.RecurrentWorkspace(
        recurrent.pack(model, device), num_rows, tiling, device
    )
    inputs, slots_SBH = workspace._x[:num_rows], workspace._hidden_SBLH[:, :, 0]
    inputs.copy_(torch.randn(1, 256).expand(num_rows, 256))
    slots_SBH[0] = torch.randn(1, 256).to(device)

    def launch() -> None:
        workspace._enqueue_layer(0, inputs, slots_SBH[0], slots_SBH[1])

    return launch, slots_SBH[1, num_rows - 1]


def wide_product(num_rows: int, tiling: Tiling, device: torch.device) -> Prepared:
    torch.manual_seed(0)
    product = gpu_linear(torch.nn.Linear(384, 1536), device)
    rows = torch.randn(1, 384).expand(num_rows, 384).contiguous().to(device)
    outputs = torch.zeros(num_rows, 1536, device=device)
    options = MatmulOptions(epsilon=1e-6, is_squared=True)

    def launch() -> None:
        product.multiply(rows, outputs, num_rows, tiling, options)

    return launch, outputs[num_rows - 1]


def microseconds(launch: Callable[[], object]) -> float:
    """The time of one launch, averaged over a graph of many."""
    launch()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(NUM_LAUNCHES):
            launch()
    graph.replay()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(NUM_REPLAYS):
        graph.replay()
    end.record()
    end.synchronize()
    return 1000 * start.elapsed_time(end) / (NUM_LAUNCHES * NUM_REPLAYS)


if __name__ == "__main__":
    typer.run(main)
