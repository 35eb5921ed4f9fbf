"""`memorization`: how much of its training text a model copies."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from charlm_model.inference.sampling_loop import generate
from charlm_training.diagnose.diagnosed_model import DiagnosedModel
from charlm_training.diagnose.diagnosis import Diagnosis
from charlm_training.diagnose.suffix_automaton import SuffixAutomaton
from charlm_training.errors import CorpusTooSmall
from charlm_training.report.plot import Curve, Plot

# Where texts are short, as lines are, there are more of them.
NUM_SAMPLES, SAMPLE_TOKENS, MOST_SAMPLES = 16, 512, 400
LENGTHS = (5, 10, 15, 20, 30, 40, 50, 75, 100, 150, 200)
# The length of the copies in the sentence: a long phrase, which seldom occurs twice by chance.
COPY_LENGTH = 50
# Shorter copies are common words and phrases.
SHORTEST_COPY, CLEAR_SHARE = 20, 0.01
# One pass over the training text takes about a second per million characters.
MOST_CHARACTERS = 50_000_000
SHOWN = 60


@dataclass(frozen=True, kw_only=True, slots=True)
class Overlap:
    """Texts, and for each of their characters the length of the longest copy that ends there."""

    texts: Sequence[str]
    suffixes: Sequence[Sequence[int]]

    @property
    def longest(self) -> int:
        return max(max(suffixes) for suffixes in self.suffixes)

    @property
    def longest_text(self) -> str:
        text, suffixes = max(
            zip(self.texts, self.suffixes, strict=True), key=lambda pair: max(pair[1])
        )
        end = suffixes.index(max(suffixes)) + 1
        return text[end - self.longest : end]

    def share(self, length: int) -> float:
        """The share of characters that lie inside a copy of at least this length."""
        covered = sum(_covered(suffixes, length) for suffixes in self.suffixes)
        return covered / sum(map(len, self.suffixes))


def diagnose(
    subjects: Sequence[DiagnosedModel],
    *,
    training: Iterable[str],
    validation: Iterable[str],
    seed: int,
) -> Diagnosis:
    """Samples of every model, beside as much text that no model has seen.

    Both parts of the text come in chunks of any length.
    """
    groups = {subject.name: samples(subject, seed) for subject in subjects}
    unseen = _pieces(validation)
    training = islice(chain.from_iterable(training), MOST_CHARACTERS)
    overlaps = overlaps_with(training, {**groups, "unseen text": unseen})
    rows = [
        {
            "text": name,
            "copy_length": length,
            "share_of_characters": f"{overlap.share(length):.6f}",
            "longest_copy": overlap.longest,
        }
        for name, overlap in overlaps.items()
        for length in LENGTHS
    ]
    return Diagnosis(
        name="memorization", sentence=finding(overlaps), rows=rows, plots=[_plot(overlaps)]
    )


def samples(subject: DiagnosedModel, seed: int) -> list[str]:
    """Samples at temperature 1 from the start of a text, without empty ones."""
    written: list[str] = []
    num_tokens = 0
    for number in range(MOST_SAMPLES):
        generated = generate(subject.model, [], max_new_tokens=SAMPLE_TOKENS, seed=seed + number)
        num_tokens += len(generated.ids)
        if generated.ids:
            written.append(subject.vocabulary.decode(generated.ids))
        if num_tokens >= NUM_SAMPLES * SAMPLE_TOKENS:
            break
    return written or ["\n"]


def overlaps_with(training: Iterable[str], groups: dict[str, Sequence[str]]) -> dict[str, Overlap]:
    """The copies in each group of texts, by one pass over the characters of the training text."""
    symbols: list[str | int] = []
    for number, text in enumerate(chain.from_iterable(groups.values())):
        symbols += [*text, number]  # a number occurs in no text, so no copy crosses it
    suffixes = iter(SuffixAutomaton(symbols).longest_suffixes(training))
    found = {}
    for name, texts in groups.items():
        own = [[next(suffixes) for _ in f"{text}|"][:-1] for text in texts]
        found[name] = Overlap(texts=texts, suffixes=own)
    return found


def finding(overlaps: dict[str, Overlap]) -> str:
    """The longest copy of each, and whether samples copy more than unseen text does."""
    *models, unseen = overlaps.items()
    said = []
    for name, overlap in models:
        shown = overlap.longest_text[:SHOWN]
        copies = overlap.share(COPY_LENGTH)
        more = "more" if is_copying(overlap, unseen[1]) else "no more"
        said.append(
            f"the longest copy that {name} wrote has {overlap.longest} characters ({shown!r}), "
            f"and {copies:.1%} of its characters lie in copies of {COPY_LENGTH} or longer: {more} "
            "than in unseen text"
        )
    text = "; ".join(said)
    there = f"longest {unseen[1].longest}, {unseen[1].share(COPY_LENGTH):.1%}"
    return f"{text[0].upper()}{text[1:]} (there: {there})."


def is_copying(overlap: Overlap, unseen: Overlap) -> bool:
    """Whether clearly more of it lies in copies, of any length that counts, than of unseen text."""
    return any(
        overlap.share(length) > unseen.share(length) + CLEAR_SHARE
        for length in LENGTHS
        if length >= SHORTEST_COPY
    )


def _covered(suffixes: Sequence[int], length: int) -> int:
    """How many characters some copy of at least this length covers."""
    covered, free_from = 0, 0
    for end, suffix in enumerate(suffixes, 1):
        if suffix >= length:
            covered += end - max(end - suffix, free_from)
            free_from = end
    return covered


def _pieces(chunks: Iterable[str]) -> list[str]:
    """Unseen text of the same size as the samples, in pieces of the same length."""
    text = "".join(islice(chain.from_iterable(chunks), NUM_SAMPLES * SAMPLE_TOKENS))
    if not text:
        raise CorpusTooSmall("The corpus has no validation part to compare with.")
    return [text[at : at + SAMPLE_TOKENS] for at in range(0, len(text), SAMPLE_TOKENS)]


def _plot(overlaps: dict[str, Overlap]) -> Plot:
    return Plot(
        title="Characters inside verbatim copies of the training text",
        x_label="length of the copy in characters",
        y_label="share of characters",
        is_log_x=True,
        curves=[
            Curve(
                name=name,
                x=LENGTHS,
                y=[overlap.share(length) for length in LENGTHS],
                is_dashed=name == "unseen text",
            )
            for name, overlap in overlaps.items()
        ],
    )
