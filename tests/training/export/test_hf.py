"""What transformers loads with its own classes is the checkpoint's function and its vocabulary."""

import json
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from charlm_model import checkpoint
from charlm_model.config import ModelConfig
from charlm_model.families import transformer
from charlm_model.families.registry import build
from charlm_model.inference.sampling_loop import generate
from charlm_model.sampling.params import SamplingParams
from charlm_model.text.vocabulary import ByteVocabulary, CharVocabulary, Vocabulary
from charlm_training.errors import NotPossible
from charlm_training.export.bundle import export

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("transformers") is None, reason="extra `hf` is not installed"),
    # Its imports use what Python deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning"),
]

WINDOW = 6
CHARACTERS = "\n\t abcdefgh.\u00e9\U0001f433"
TEXT = "a cab\n\n  beef\t\u00e9gad\U0001f433 . head bag fade"


def saved(directory: Path, vocabulary: Vocabulary, **sizes: int) -> checkpoint.Checkpoint:
    """A model whose every weight matters: fresh ones hold zeros."""
    torch.manual_seed(11)
    chosen = {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "context_length": WINDOW, **sizes}
    model = build(ModelConfig(family="transformer", vocab_size=vocabulary.size, **chosen))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    checkpoint.save(directory, model.eval(), vocabulary, {})
    return checkpoint.load(directory)


@pytest.fixture(params=[CharVocabulary(CHARACTERS), ByteVocabulary()], ids=["char", "byte"])
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Any, Any, Any]:
    """Our checkpoint, and model and tokenizer as transformers loads them."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    made = saved(tmp_path / "ours", request.param)
    worst = export(made, "hf", tmp_path / "hf")
    assert worst < 1e-2
    folder = tmp_path / "hf"
    model = AutoModelForCausalLM.from_pretrained(folder)
    return made, model, AutoTokenizer.from_pretrained(folder)


def test_logits_are_those_of_the_model_beyond_its_window(
    exported: tuple[Any, Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the rounding of keys and values to bfloat16, which transformers does not do."""
    monkeypatch.setattr(transformer, "_rounded_to_bfloat16", lambda x: x)
    made, theirs, _ = exported
    ids_BT = torch.randint(0, made.config.vocab_size, (3, 5 * WINDOW))

    with torch.no_grad():
        expected_BTV, _ = made.model(ids_BT, made.model.initial_state(3))
        logits_BTV = theirs(ids_BT).logits

    assert type(theirs).__module__.startswith("transformers.models.")
    torch.testing.assert_close(logits_BTV, expected_BTV, atol=2e-4, rtol=1e-4)


def test_the_tokenizer_has_our_ids_and_gives_the_text_back(exported: tuple[Any, Any, Any]) -> None:
    made, _, tokenizer = exported

    ids = tokenizer(TEXT)["input_ids"]

    assert ids == [0, *made.vocabulary.encode(TEXT)]
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXT
    unknown = "a cab #\u4e2d!"
    replaced = made.vocabulary.encode(unknown, unknown="replace")
    assert tokenizer(unknown)["input_ids"] == [0, *replaced]


def test_greedy_text_is_the_same(exported: tuple[Any, Any, Any]) -> None:
    made, theirs, tokenizer = exported
    greedy = SamplingParams(temperature=0.0)
    prompt_ids = made.vocabulary.encode(TEXT)

    ours = generate(made.model, prompt_ids, max_new_tokens=40, params=greedy, seed=0)
    ids_1T = theirs.generate(
        **tokenizer(TEXT, return_tensors="pt"), max_new_tokens=40, do_sample=False
    )

    continued = tokenizer.decode(ids_1T[0, len(prompt_ids) + 1 :], skip_special_tokens=True)
    assert continued == made.vocabulary.decode(ours.ids)
    assert len(ours.ids) > WINDOW


@pytest.mark.parametrize(
    ("sizes", "said"),
    [({"kernel_size": 3}, "sees 3 at once.*--kernel-size 1"), ({"pair_rows": 9}, "sees 2 at once")],
)
def test_a_model_that_is_given_several_tokens_is_refused(
    tmp_path: Path, sizes: dict[str, int], said: str
) -> None:
    made = saved(tmp_path / "ours", CharVocabulary(CHARACTERS), **sizes)

    with pytest.raises(NotPossible, match=said):
        export(made, "hf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_another_family_is_refused(tmp_path: Path) -> None:
    vocabulary = CharVocabulary(CHARACTERS)
    model = build(ModelConfig(family="gru", vocab_size=vocabulary.size, hidden_size=16))
    checkpoint.save(tmp_path / "gru", model, vocabulary, {})

    with pytest.raises(NotPossible, match="for the Transformer"):
        export(checkpoint.load(tmp_path / "gru"), "hf", tmp_path / "hf")


def test_what_computes_something_else_is_not_written(tmp_path: Path) -> None:
    made = saved(tmp_path / "ours", CharVocabulary(CHARACTERS))
    golden = made.report["golden"]
    moved = {**golden, "logprobs": [each + 0.1 for each in golden["logprobs"]]}

    with pytest.raises(NotPossible, match="nothing was written"):
        export(replace(made, report={"golden": moved}), "hf", tmp_path / "hf")
    assert not (tmp_path / "hf").exists()


def test_the_configuration_states_the_window(tmp_path: Path) -> None:
    export(saved(tmp_path / "ours", ByteVocabulary()), "hf", tmp_path / "hf")

    told = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert told["model_type"] == "qwen3"
    assert told["sliding_window"] == WINDOW
    assert told["layer_types"] == ["sliding_attention"] * 2
