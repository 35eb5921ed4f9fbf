"""The comparison's own Transformer: a GPT as tutorials write it, in plain PyTorch.

B batch, T time, V vocabulary, E width.
"""

import math
import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """nanoGPT's recipe for a processor, from its README; rates as in its configuration."""

    num_layers: int = 4
    num_heads: int = 4
    width: int = 128
    block: int = 64
    batch: int = 12
    steps: int = 2000
    rate: float = 1e-3
    final_rate: float = 1e-4
    warmup: int = 100
    eval_interval: int = 250
    eval_batches: int = 20


class PlainBlock(nn.Module):
    """Pre-norm attention and MLP."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self._num_heads = num_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(2))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.down = nn.Linear(4 * width, width, bias=False)

    def forward(self, x_BTE: Tensor) -> Tensor:
        B, T, E = x_BTE.shape
        heads = self.qkv(self.norms[0](x_BTE)).view(B, T, 3, self._num_heads, -1)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        mixed_BNTD = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTE = x_BTE + self.out(mixed_BNTD.transpose(1, 2).reshape(B, T, E))
        added: Tensor = self.down(F.gelu(self.up(self.norms[1](x_BTE))))
        return x_BTE + added


class PlainGPT(nn.Module):
    """Learned positions, layer norm, GELU, tied embeddings."""

    def __init__(
        self, vocab_size: int, *, num_layers: int, num_heads: int, width: int, block: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocab_size, width)
        self.positions = nn.Embedding(block, width)
        self.blocks = nn.ModuleList(PlainBlock(width, num_heads) for _ in range(num_layers))
        self.norm = nn.LayerNorm(width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                is_residual = name.endswith(("out.weight", "down.weight"))
                std = 0.02 / math.sqrt(2 * num_layers) if is_residual else 0.02
                nn.init.normal_(parameter, std=std)

    def forward(self, ids_BT: Tensor) -> Tensor:
        x_BTE = self.tokens(ids_BT) + self.positions.weight[: ids_BT.shape[1]]
        for block in self.blocks:
            x_BTE = block(x_BTE)
        return F.linear(self.norm(x_BTE), self.tokens.weight)


@dataclass(frozen=True, slots=True)
class RecipeResult:
    seconds: float
    nats_in_blocks: float
    """Over the whole validation text, in cold blocks of the recipe's own length."""


def run_recipe(train_N: Tensor, validation_N: Tensor, vocab_size: int, seed: int) -> RecipeResult:
    """Train by the recipe, its evaluations included; then measure the whole validation text."""
    recipe = Recipe()
    torch.manual_seed(seed)
    began = time.perf_counter()
    model = PlainGPT(
        vocab_size,
        num_layers=recipe.num_layers,
        num_heads=recipe.num_heads,
        width=recipe.width,
        block=recipe.block,
    )
    optimizer = torch.optim.AdamW(
        [
            {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=recipe.rate,
        betas=(0.9, 0.99),
    )
    for step in range(recipe.steps):
        if step % recipe.eval_interval == 0:
            for text_N in (train_N, validation_N):
                with torch.no_grad():
                    for _ in range(recipe.eval_batches):
                        batch_loss(model, text_N, recipe.batch, recipe.block)
        for group in optimizer.param_groups:
            group["lr"] = rate_at(step, recipe)
        optimizer.zero_grad(set_to_none=True)
        batch_loss(model, train_N, recipe.batch, recipe.block).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return RecipeResult(time.perf_counter() - began, nats_in_blocks(model, validation_N))


def rate_at(step: int, recipe: Recipe) -> float:
    if step < recipe.warmup:
        return recipe.rate * (step + 1) / (recipe.warmup + 1)
    share = (step - recipe.warmup) / (recipe.steps - recipe.warmup)
    cosine = 0.5 * (1 + math.cos(math.pi * share))
    return recipe.final_rate + cosine * (recipe.rate - recipe.final_rate)


def batch_loss(model: nn.Module, text_N: Tensor, batch: int, block: int) -> Tensor:
    starts_B1 = torch.randint(len(text_N) - block, (batch, 1))
    window_BT = text_N[starts_B1 + torch.arange(block + 1)]
    logits_BTV = model(window_BT[:, :-1])
    return F.cross_entropy(logits_BTV.flatten(0, 1), window_BT[:, 1:].flatten())


@torch.no_grad()
def nats_in_blocks(model: nn.Module, text_N: Tensor, block: int = 64) -> float:
    num_blocks = (len(text_N) - 1) // block
    inputs = text_N[: num_blocks * block].view(num_blocks, block)
    targets = text_N[1 : num_blocks * block + 1].view(num_blocks, block)
    nats = [
        F.cross_entropy(model(ids_BT).flatten(0, 1), target_BT.flatten(), reduction="sum").item()
        for ids_BT, target_BT in zip(inputs.split(64), targets.split(64), strict=True)
    ]
    return sum(nats) / (num_blocks * block)
