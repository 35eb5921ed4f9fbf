"""Other systems on the same shapes, with random weights: each where it is installed.

CTranslate2 and transformers are no dependencies of the project: install them to see their rows.
"""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

PROMPT_LENGTH, OUTPUT_LENGTH = 20, 256
VOCAB_SIZE = 65
Rate = Callable[[int], float]  # tokens a second with so many streams
NUM_POSITIONS = 512
STOP_S = 30.0


@contextmanager
def peers_of(
    family: str, layers: int, heads: int, width: int, threads: int
) -> Iterator[dict[str, Rate]]:
    """Name and measurement of each. Each has a process: their threads would wait for each other."""
    makers = MAKERS[family == "transformer"]
    installed = {name: make for name, make in makers.items() if find_spec(make[0])}
    with ExitStack() as stack:
        yield {
            name: stack.enter_context(elsewhere(make, family, layers, heads, width, threads))
            for name, (_, make) in installed.items()
        }


@contextmanager
def elsewhere(make: Callable[..., Rate], *shape: Any) -> Iterator[Rate]:
    """A measurement in a process of its own."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measure, args=(theirs, make, *shape), daemon=True)
    process.start()

    def rate(num_streams: int) -> float:
        ours.send(num_streams)
        return float(ours.recv())

    try:
        yield rate
    finally:
        ours.close()
        process.join(STOP_S)
        process.kill()


def _measure(pipe: Connection, make: Callable[..., Rate], *shape: Any) -> None:
    rate = make(*shape)
    with suppress(EOFError):
        while True:
            pipe.send(rate(pipe.recv()))


def eager(family: str, layers: int, _heads: int, width: int, threads: int) -> Rate:
    """A step of torch's own module, a softmax and a draw."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    embedding, head = nn.Embedding(VOCAB_SIZE, 64), nn.Linear(width, VOCAB_SIZE)
    module = {"gru": nn.GRU, "lstm": nn.LSTM}[family](64, width, layers, batch_first=True)

    @torch.inference_mode()
    def rate(num_streams: int) -> float:
        started = time.perf_counter()
        hidden, state = module(embedding(torch.zeros(num_streams, PROMPT_LENGTH, dtype=torch.long)))
        hidden = hidden[:, -1:]
        for _ in range(OUTPUT_LENGTH):
            logprobs = head(hidden[:, 0]).log_softmax(-1)
            ids = torch.multinomial(logprobs.exp(), 1)
            logprobs.gather(1, ids)
            hidden, state = module(embedding(ids), state)
        return num_streams * OUTPUT_LENGTH / (time.perf_counter() - started)

    return rate


def ctranslate2(_family: str, layers: int, heads: int, width: int, threads: int) -> Rate:
    import ctranslate2 as library

    with tempfile.TemporaryDirectory() as folder:
        _write_ctranslate2(library, folder, layers, heads, width)
        generator = library.Generator(
            folder, compute_type="float32", intra_threads=threads, inter_threads=1
        )

    def rate(num_streams: int) -> float:
        prompts = [
            [f"t{(7 * row + place) % 60}" for place in range(PROMPT_LENGTH)]
            for row in range(num_streams)
        ]
        started = time.perf_counter()
        outputs = generator.generate_batch(
            prompts,
            max_length=OUTPUT_LENGTH,
            min_length=OUTPUT_LENGTH,
            sampling_topk=0,
            return_scores=True,
            include_prompt_in_result=False,
        )
        num_tokens = sum(len(output.sequences_ids[0]) for output in outputs)
        return num_tokens / (time.perf_counter() - started)

    return rate


def _write_ctranslate2(library: Any, folder: str, layers: int, heads: int, width: int) -> None:
    specs = library.specs.transformer_spec
    spec = specs.TransformerDecoderModelSpec.from_config(
        layers, heads, pre_norm=True, activation=library.specs.common_spec.Activation.GELUTanh
    )

    chance = np.random.default_rng(0)

    def weights(outputs: int) -> Any:
        return (0.02 * chance.standard_normal((outputs, width))).astype(np.float32)

    def fill(linear: Any, outputs: int, inputs: int) -> None:
        linear.weight = weights(outputs * inputs // width).reshape(outputs, inputs)
        linear.bias = np.zeros(outputs, np.float32)

    def level(norm: Any) -> None:
        norm.gamma, norm.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    decoder = spec.decoder
    decoder.scale_embeddings = False
    decoder.embeddings.weight = weights(VOCAB_SIZE)
    decoder.position_encodings.encodings = weights(NUM_POSITIONS)
    decoder.projection.weight = weights(VOCAB_SIZE)
    level(decoder.layer_norm)
    for layer in decoder.layer:
        level(layer.self_attention.layer_norm)
        level(layer.ffn.layer_norm)
        fill(layer.self_attention.linear[0], 3 * width, width)
        fill(layer.self_attention.linear[1], width, width)
        fill(layer.ffn.linear_0, 4 * width, width)
        fill(layer.ffn.linear_1, width, 4 * width)
    words = [f"t{number}" for number in range(VOCAB_SIZE - 3)]
    spec.register_vocabulary([*words, "<s>", "</s>", "<unk>"])
    spec.config.bos_token, spec.config.eos_token, spec.config.unk_token = "<s>", "</s>", "<unk>"
    spec.validate()
    spec.optimize(quantization=None)
    spec.save(folder)


def transformers(_family: str, layers: int, heads: int, width: int, threads: int) -> Rate:
    import torch
    import transformers as library

    torch.set_num_threads(threads)
    config = library.GPT2Config(
        vocab_size=VOCAB_SIZE,
        n_positions=NUM_POSITIONS,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=None,
        eos_token_id=None,
    )
    model = library.GPT2LMHeadModel(config).eval()

    def rate(num_streams: int) -> float:
        prompts = torch.ones(num_streams, PROMPT_LENGTH, dtype=torch.long)
        started = time.perf_counter()
        ids = model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            do_sample=True,
            top_k=0,
            max_new_tokens=OUTPUT_LENGTH,
            min_new_tokens=OUTPUT_LENGTH,
            pad_token_id=0,
        )
        num_tokens = num_streams * (ids.shape[1] - PROMPT_LENGTH)
        return num_tokens / (time.perf_counter() - started)

    return rate


# By whether it is the Transformer: what must be installed, and what makes the measurement.
MAKERS: dict[bool, dict[str, tuple[str, Callable[..., Rate]]]] = {
    False: {"PyTorch eager": ("torch", eager)},
    True: {
        "CTranslate2 float32": ("ctranslate2", ctranslate2),
        "transformers generate": ("transformers", transformers),
    },
}
