"""A short sample of a model in training."""

from charlm_model.inference.sampling_loop import generate
from charlm_model.language_model import LanguageModel
from charlm_model.sampling.params import SamplingParams
from charlm_model.text.vocabulary import Vocabulary

STREAM_TOKENS = 160
NUM_LINES, LINE_TOKENS = 8, 40
# A little below 1, because a half-trained model's rare choices are mostly mistakes.
PARAMS = SamplingParams(temperature=0.8)


def sample_text(model: LanguageModel, vocabulary: Vocabulary, unit: str, seed: int) -> str:
    """The continuation of a line end; in the `line` unit several lines, each sampled alone."""
    model.eval()
    if unit == "stream":
        prompt_ids = vocabulary.encode("\n", unknown="replace")
        return _continuation(model, vocabulary, prompt_ids, STREAM_TOKENS, seed)
    return "\n".join(
        _continuation(model, vocabulary, [], LINE_TOKENS, seed + n) for n in range(NUM_LINES)
    )


def _continuation(
    model: LanguageModel, vocabulary: Vocabulary, prompt_ids: list[int], num_tokens: int, seed: int
) -> str:
    generated = generate(model, prompt_ids, max_new_tokens=num_tokens, params=PARAMS, seed=seed)
    return vocabulary.decode(generated.ids)
