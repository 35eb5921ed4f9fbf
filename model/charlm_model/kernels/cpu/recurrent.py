"""Inference of RNN, GRU and LSTM: all steps of all rows in one call.

In a row of gates each gate is padded to whole vectors, and the row to whole panels.

Legend: B rows, T tokens, V vocabulary, E embedding, H hidden, L layers.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import nn

from charlm_model.kernels.cpu.barrier_group import (
    add_product_shard,
    fill_shard,
    shard_of,
    wait_at_barrier,
)
from charlm_model.kernels.cpu.bounds_checks import check_tokens
from charlm_model.kernels.cpu.elementary import sigmoid, tanh
from charlm_model.kernels.cpu.embedding import PackedEmbedding, embed, pack_embedding, update_recent
from charlm_model.kernels.cpu.jit import compiled
from charlm_model.kernels.cpu.matmul import add_product, padded
from charlm_model.kernels.cpu.matmul_tile import PANEL_WIDTH
from charlm_model.kernels.cpu.sampling import sample_rows, workspace_for
from charlm_model.kernels.cpu.simd import LANES, add, fma, load, multiply, store, subtract
from charlm_model.kernels.cpu.weights import Floats, Packer, array_of, lanes_of
from charlm_model.layers.embedding import TokenEmbedding

RNN, GRU, LSTM = 0, 1, 2
_KINDS = {"rnn": (RNN, 1), "gru": (GRU, 3), "lstm": (LSTM, 4)}
_MAX_ROWS = 512  # multiplied together: their workspace stays in the processor's caches
# Columns of `offsets_L4`: a layer's weights and biases.
_INPUT, _INPUT_BIAS, _HIDDEN, _HIDDEN_BIAS = range(4)


class RecurrentShape(NamedTuple):
    """The sizes that a kernel needs, and the offsets of its head's weights."""

    kind: int
    num_layers: int
    hidden_size: int
    hidden_lanes: int
    gates_width: int  # of a row of gates
    vocab_size: int
    logits_width: int
    head: int
    head_bias: int
    input_gate_table: int  # offset of the first layer's input gates by token, or -1


class PackedRecurrent(NamedTuple):
    """A model's sizes and weights in the layout of its kernels."""

    shape: RecurrentShape
    tables: PackedEmbedding
    offsets_L4: NDArray[np.int64]
    weights: Floats


def pack(
    family: str, embedding: TokenEmbedding, recurrent: nn.RNNBase, head: nn.Linear
) -> PackedRecurrent:
    kind, num_gates = _KINDS[family]
    packer = Packer()
    hidden_size = recurrent.hidden_size
    lanes = lanes_of(hidden_size)
    width = padded(num_gates * lanes)
    tables = pack_embedding(embedding, packer)

    def by_gate(values: Floats) -> Floats:
        """Pad each gate to whole vectors."""
        gates = values.reshape(num_gates, hidden_size, -1)
        rows = np.zeros((num_gates, lanes, gates.shape[2]), np.float32)
        rows[:, :hidden_size] = gates
        return rows.reshape(num_gates * lanes, -1)

    def bias_of(values: Floats, to: int) -> int:
        return packer.add(np.pad(values.ravel(), (0, to - values.size)))

    offsets = []
    for layer in range(recurrent.num_layers):
        parameter = {
            name: array_of(getattr(recurrent, f"{name}_l{layer}"))
            for name in ("weight_ih", "bias_ih", "weight_hh", "bias_hh")
        }
        offsets.append(
            [
                packer.add_panels(by_gate(parameter["weight_ih"])),
                bias_of(by_gate(parameter["bias_ih"]), width),
                packer.add_panels(by_gate(parameter["weight_hh"])),
                bias_of(by_gate(parameter["bias_hh"]), width),
            ]
        )
    vocab_size = head.out_features
    shape = RecurrentShape(
        kind=kind,
        num_layers=recurrent.num_layers,
        hidden_size=hidden_size,
        hidden_lanes=lanes,
        gates_width=width,
        vocab_size=vocab_size,
        logits_width=padded(vocab_size),
        head=packer.add_panels(array_of(head.weight)),
        head_bias=bias_of(array_of(head.bias), padded(vocab_size)),
        input_gate_table=-1,
    )
    offsets_L4 = np.array(offsets, np.int64)
    if not embedding.num_recent:
        shape = shape._replace(
            input_gate_table=_add_input_gate_table(shape, tables, offsets_L4, packer)
        )
    return PackedRecurrent(shape, tables, offsets_L4, packer.packed())


def _add_input_gate_table(
    shape: RecurrentShape, tables: PackedEmbedding, offsets_L4: NDArray[np.int64], packer: Packer
) -> int:
    """Tabulate the first layer's input gates: without recent tokens they depend on one token."""
    weights = packer.packed()
    bias = weights[offsets_L4[0, _INPUT_BIAS] :][: shape.gates_width]
    table_VG = np.tile(bias, (shape.vocab_size, 1))
    add_product(
        weights, tables.tokens, tables.width, shape.vocab_size, tables.width,
        weights, int(offsets_L4[0, _INPUT]), shape.gates_width,
        table_VG.reshape(-1), 0, shape.gates_width,
    )  # fmt: skip
    return packer.add(table_VG)


@compiled
def advance(packed, group, workspace, ids_BT, recent_BK, hidden_BLH, cell_BLH, logits_BTV):
    """Read T tokens a row: logits after each, and the state in place.

    `cell_BLH` is the LSTM's; the other kinds ignore it. `workspace` has `workspace_size` zeros,
    which all members of the group share.
    """
    shape = packed.shape
    check_tokens(ids_BT, recent_BK, shape.vocab_size)
    B, T = ids_BT.shape
    block = rows_per_block(B, T) // B
    work = _split_workspace(packed, B, B * block, workspace)
    hidden, cell = work[0], work[1]
    if group.member == 0:
        _pad_hidden(shape, hidden_BLH, hidden)
        if shape.kind == LSTM:
            _pad_hidden(shape, cell_BLH, cell)
    for first in range(0, T, block):
        length = min(block, T - first)
        _run_block(packed, group, ids_BT, recent_BK, first, length, work)
        _write_logits(shape, group, work[5], first, length, logits_BTV)
        if group.member == 0 and first + length == T:
            update_recent(ids_BT, recent_BK)
            _unpad_hidden(shape, hidden, hidden_BLH)
            if shape.kind == LSTM:
                _unpad_hidden(shape, cell, cell_BLH)
        wait_at_barrier(group)


@compiled
def sample(
    packed,
    group,
    workspace,
    draws_B3,
    recent_BK,
    hidden_BLH,
    cell_BLH,
    logits_B1V,
    ids_BK,
    logprobs_BK,
):
    """Sample several steps: draw a token for every row, feed it, repeat. Updates logits and state.

    `draws_B3` is described at `charlm_model.kernels.cpu.sampling.sample_rows`.
    """
    ids_B1 = np.zeros((len(logits_B1V), 1), np.int64)  # read by the first member alone
    sampling_workspace = workspace_for(packed.shape.vocab_size)
    for step in range(ids_BK.shape[1]):
        if group.member == 0:
            sample_rows(logits_B1V, draws_B3, step, sampling_workspace, ids_B1, ids_BK, logprobs_BK)
        advance(packed, group, workspace, ids_B1, recent_BK, hidden_BLH, cell_BLH, logits_B1V)


@compiled
def rows_per_block(num_rows, num_tokens):
    """Rows of the workspace (rows times tokens) that are computed together."""
    return num_rows * max(1, min(num_tokens, _MAX_ROWS // num_rows))


@compiled
def workspace_size(packed, _num_members, num_rows, num_tokens):
    """Length of the workspace, in float32."""
    total = 0
    for size in _sizes(packed, num_rows, rows_per_block(num_rows, num_tokens)):
        total += size
    return total


@compiled
def _sizes(packed, num_rows, num_block_rows):
    """Sizes of hidden state, cell state, inputs, input gates, hidden gates and logits."""
    shape = packed.shape
    states = num_rows * shape.num_layers * shape.hidden_lanes
    gates = num_block_rows * shape.gates_width
    depth = max(packed.tables.width, shape.hidden_lanes)
    return states, states, num_block_rows * depth, gates, gates, num_block_rows * shape.logits_width


@compiled
def _split_workspace(packed, num_rows, num_block_rows, workspace):
    """The workspace, split into the parts that `_sizes` lists."""
    states, _, inputs, gates, _, logits = _sizes(packed, num_rows, num_block_rows)
    inputs_at = 2 * states
    gates_at = inputs_at + inputs
    logits_at = gates_at + 2 * gates
    return (
        workspace[:states],
        workspace[states:inputs_at],
        workspace[inputs_at:gates_at],
        workspace[gates_at : gates_at + gates],
        workspace[gates_at + gates : logits_at],
        workspace[logits_at : logits_at + logits],
    )


@compiled
def _write_logits(shape, group, logits, first, length, logits_BTV):
    """Copy this member's columns of the logits."""
    B = len(logits_BTV)
    start, end = shard_of(group, shape.logits_width // PANEL_WIDTH)
    for b in range(B):
        for t in range(length):
            row = (t * B + b) * shape.logits_width
            for v in range(start * PANEL_WIDTH, min(end * PANEL_WIDTH, shape.vocab_size)):
                logits_BTV[b, first + t, v] = logits[row + v]


@compiled
def _run_block(packed, group, ids_BT, recent_BK, first, length, work):
    """Run one block of tokens; row t * B + b of the workspace is token t of row b."""
    shape, weights, offsets_L4 = packed.shape, packed.weights, packed.offsets_L4
    B, H, lanes, gates = len(ids_BT), shape.hidden_size, shape.hidden_lanes, shape.gates_width
    hidden, cell, x, from_input, from_hidden, logits = work
    num_rows, stride = B * length, shape.num_layers * lanes
    start, end = shard_of(group, lanes // LANES)
    _first_layer_input_gates(packed, group, ids_BT, recent_BK, first, length, x, from_input)
    for layer in range(shape.num_layers):
        if layer:
            fill_shard(group, weights, offsets_L4[layer, _INPUT_BIAS], gates, num_rows, from_input)
            add_product_shard(
                group, x, 0, lanes, num_rows, H,
                weights, offsets_L4[layer, _INPUT], gates, from_input, 0, gates,
            )  # fmt: skip
        for t in range(length):
            fill_shard(group, weights, offsets_L4[layer, _HIDDEN_BIAS], gates, B, from_hidden)
            add_product_shard(
                group, hidden, layer * lanes, stride, B, H,
                weights, offsets_L4[layer, _HIDDEN], gates, from_hidden, 0, gates,
            )  # fmt: skip
            wait_at_barrier(group)
            for b in range(B):
                row, at = t * B + b, b * stride + layer * lanes
                _step(
                    shape.kind,
                    lanes,
                    start * LANES,
                    end * LANES,
                    from_input,
                    row * gates,
                    from_hidden,
                    b * gates,
                    hidden,
                    cell,
                    at,
                )
                for h in range(start * LANES, end * LANES, LANES):
                    store(x, row * lanes + h, load(hidden, at + h))
            wait_at_barrier(group)
    fill_shard(group, weights, shape.head_bias, shape.logits_width, num_rows, logits)
    add_product_shard(
        group, x, 0, lanes, num_rows, H,
        weights, shape.head, shape.logits_width, logits, 0, shape.logits_width,
    )  # fmt: skip


@compiled
def _first_layer_input_gates(packed, group, ids_BT, recent_BK, first, length, x, from_input):
    """Compute this member's columns of the first layer's input gates."""
    shape, tables, weights = packed.shape, packed.tables, packed.weights
    B, gates = len(ids_BT), shape.gates_width
    if group.member == 0:
        for t in range(length):
            for b in range(B):
                row = t * B + b
                if shape.input_gate_table >= 0:
                    table = shape.input_gate_table + ids_BT[b, first + t] * gates
                    for g in range(0, gates, LANES):
                        store(from_input, row * gates + g, load(weights, table + g))
                else:
                    at = row * tables.width
                    embed(tables, weights, ids_BT[b], recent_BK[b], first + t, x, at)
    wait_at_barrier(group)
    if shape.input_gate_table < 0:
        num_rows = B * length
        fill_shard(group, weights, packed.offsets_L4[0, _INPUT_BIAS], gates, num_rows, from_input)
        add_product_shard(
            group, x, 0, tables.width, num_rows, tables.width,
            weights, packed.offsets_L4[0, _INPUT], gates, from_input, 0, gates,
        )  # fmt: skip


@compiled
def _step(kind, lanes, start, end, from_input, x_at, from_hidden, h_at, hidden, cell, at):
    """One step of some lanes of one row of one layer; formulas as in `layers.recurrent_cells`."""
    for i in range(start, end, LANES):
        x0, h0 = load(from_input, x_at + i), load(from_hidden, h_at + i)
        if kind == RNN:
            store(hidden, at + i, tanh(add(x0, h0)))
            continue
        x1, h1 = load(from_input, x_at + lanes + i), load(from_hidden, h_at + lanes + i)
        x2, h2 = load(from_input, x_at + 2 * lanes + i), load(from_hidden, h_at + 2 * lanes + i)
        if kind == GRU:
            reset, update = sigmoid(add(x0, h0)), sigmoid(add(x1, h1))
            new = tanh(fma(reset, h2, x2))
            store(hidden, at + i, fma(update, subtract(load(hidden, at + i), new), new))
            continue
        x3, h3 = load(from_input, x_at + 3 * lanes + i), load(from_hidden, h_at + 3 * lanes + i)
        added = multiply(sigmoid(add(x0, h0)), tanh(add(x2, h2)))
        kept = fma(sigmoid(add(x1, h1)), load(cell, at + i), added)
        store(cell, at + i, kept)
        store(hidden, at + i, multiply(sigmoid(add(x3, h3)), tanh(kept)))


@compiled
def _pad_hidden(shape, tensor_BLH, flat):
    """Copy the state into the workspace, each layer padded to whole vectors."""
    for b in range(len(tensor_BLH)):
        for layer in range(shape.num_layers):
            at = (b * shape.num_layers + layer) * shape.hidden_lanes
            for h in range(shape.hidden_size):
                flat[at + h] = tensor_BLH[b, layer, h]


@compiled
def _unpad_hidden(shape, flat, tensor_BLH):
    for b in range(len(tensor_BLH)):
        for layer in range(shape.num_layers):
            at = (b * shape.num_layers + layer) * shape.hidden_lanes
            for h in range(shape.hidden_size):
                tensor_BLH[b, layer, h] = flat[at + h]
