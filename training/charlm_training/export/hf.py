"""A Transformer as a checkpoint that `transformers` loads with classes of its own.

Its `Qwen3ForCausalLM` is our block in other words: RMSNorm, rotary positions, normalized queries
and keys, a sliding window; and with relu(g) * u, g and u the same, its MLP squares our ReLU.

Legend: T time, V vocabulary, E embedding.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from charlm_model.checkpoint import Checkpoint
from charlm_model.families.transformer import _ROPE_BASE, NORM_EPSILON, Transformer, _norm
from charlm_model.text.vocabulary import END_OF_TEXT_ID, ByteVocabulary, CharVocabulary, Vocabulary
from charlm_training.errors import NotPossible

if TYPE_CHECKING:
    from tokenizers import Tokenizer

END_OF_TEXT = "<|endoftext|>"
# Angles of rotary positions are exact to a thousandth of a radian up to here, in its float32.
MOST_POSITIONS = 16_384


def hf_files(checkpoint: Checkpoint) -> tuple[dict[str, bytes], list[float]]:
    """The files by name, and the log-probs of the recorded tokens as loaded from these files.

    Raises NotPossible for a model or vocabulary that its classes cannot be.
    """
    transformer = _transformer(checkpoint)
    _require()
    with tempfile.TemporaryDirectory(prefix="charlm-hf-") as folder:
        _save_model(transformer, folder)
        _save_tokenizer(checkpoint.vocabulary, folder)
        logprobs = _logprobs(folder, checkpoint.report["golden"]["ids"])
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
    return files, logprobs


def _transformer(checkpoint: Checkpoint) -> Transformer:
    model, config = checkpoint.model, checkpoint.config
    if not isinstance(model, Transformer):
        raise NotPossible(
            f"--format hf is for the Transformer, but this is a model of the family "
            f"{config.family}; export it with --format torch-export or onnx."
        )
    if model.embedding.num_recent:
        raise NotPossible(
            f"--format hf needs a Transformer that is given one token at a time, but this one sees "
            f"{model.embedding.num_recent + 1} at once. Train it with --kernel-size 1."
        )
    if not isinstance(checkpoint.vocabulary, CharVocabulary | ByteVocabulary):
        raise NotPossible(
            f"--format hf writes char and byte vocabularies, but this is "
            f"{checkpoint.vocabulary.kind}; export it with --format torch-export or onnx."
        )
    return model


@torch.no_grad()
def _save_model(model: Transformer, folder: str) -> None:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    ours = model.config
    config = Qwen3Config(
        vocab_size=ours.vocab_size,
        hidden_size=ours.hidden_size,
        intermediate_size=model.layers[0].up.out_features,
        num_hidden_layers=ours.num_layers,
        num_attention_heads=ours.num_heads,
        num_key_value_heads=ours.num_heads,
        head_dim=ours.hidden_size // ours.num_heads,
        hidden_act="relu",
        max_position_embeddings=MOST_POSITIONS,
        rms_norm_eps=NORM_EPSILON,
        tie_word_embeddings=False,
        rope_parameters={"rope_type": "default", "rope_theta": _ROPE_BASE},
        use_sliding_window=True,
        sliding_window=ours.context_length,
        max_window_layers=0,
        bos_token_id=END_OF_TEXT_ID,
        eos_token_id=END_OF_TEXT_ID,
        pad_token_id=END_OF_TEXT_ID,
    )
    theirs = Qwen3ForCausalLM(config)
    theirs.load_state_dict(weights_of(model), strict=False)  # its norms have scales; ours have none
    theirs.save_pretrained(folder)


def weights_of(model: Transformer) -> dict[str, Tensor]:
    """By their names. Our stream begins with a norm, which the table can hold."""
    weights = {
        "model.embed_tokens.weight": _norm(model.embedding.weight),
        "lm_head.weight": model.head.weight,
    }
    for layer, block in enumerate(model.layers):
        name = f"model.layers.{layer}"
        projections = zip("qkv", block.qkv.weight.chunk(3), strict=True)
        weights |= {f"{name}.self_attn.{each}_proj.weight": part for each, part in projections}
        weights |= {
            f"{name}.self_attn.o_proj.weight": block.attention_out.weight,
            f"{name}.mlp.gate_proj.weight": block.up.weight,
            f"{name}.mlp.up_proj.weight": block.up.weight,
            f"{name}.mlp.down_proj.weight": block.down.weight,
        }
    return weights


def _save_tokenizer(vocabulary: Vocabulary, folder: str) -> None:
    from transformers import PreTrainedTokenizerFast

    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_of(vocabulary),
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=END_OF_TEXT,
        padding_side="left",
        model_max_length=MOST_POSITIONS,
        clean_up_tokenization_spaces=False,
    ).save_pretrained(folder)


def tokenizer_of(vocabulary: Vocabulary) -> Tokenizer:
    """One token a character or byte, with our ids, after an end of text."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing

    ids = {END_OF_TEXT: END_OF_TEXT_ID}
    if isinstance(vocabulary, CharVocabulary):
        replacement_id = vocabulary.encode("\0", unknown="replace")[0]
        ids |= {each: id for id, each in enumerate(vocabulary.characters, start=1)}
        tokenizer = Tokenizer(models.WordLevel(ids, vocabulary.characters[replacement_id - 1]))
        tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
        tokenizer.decoder = decoders.Fuse()
    else:
        letters = _letters_of_bytes()
        ids |= {letters[byte]: byte + 1 for byte in range(256)}
        tokenizer = Tokenizer(models.BPE(ids, []))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    tokenizer.post_processor = TemplateProcessing(
        single=f"{END_OF_TEXT} $A",
        pair=f"{END_OF_TEXT} $A {END_OF_TEXT} $B",
        special_tokens=[(END_OF_TEXT, END_OF_TEXT_ID)],
    )
    return tokenizer


def _letters_of_bytes() -> list[str]:
    """GPT-2's letters: every printable byte is itself, the others begin at 256."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = iter(range(256, 512))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]


@torch.no_grad()
def _logprobs(folder: str, ids: list[int]) -> list[float]:
    """Log-probs that transformers computes from the saved files."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    ids_1T = torch.tensor([[END_OF_TEXT_ID, *ids[:-1]]])
    logprobs_TV = model(ids_1T).logits[0].double().log_softmax(-1)
    logprobs: list[float] = logprobs_TV[torch.arange(len(ids)), torch.tensor(ids)].tolist()
    return logprobs


def _require() -> None:
    """Raises NotPossible without transformers, an optional extra."""
    try:
        import transformers
    except ImportError as error:
        raise NotPossible(
            "--format hf needs transformers, which is not installed. Run: pip install 'charlm[hf]'"
        ) from error
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("torch.distributed").setLevel(logging.ERROR)
