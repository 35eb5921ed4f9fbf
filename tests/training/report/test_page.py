"""A run's page holds everything in itself and says what the curves say."""

import json
import math
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_model.inference.sampling_loop import generate
from charlm_model.sampling.params import SamplingParams
from charlm_training.evaluation.samples_by_temperature import TEMPERATURES, samples_by_temperature
from charlm_training.planning.options import SizeOptions, TrainOptions
from charlm_training.report.drawing import svg
from charlm_training.report.page import history_of, page
from charlm_training.report.plot import Curve, Plot
from charlm_training.report.verdict import History, fit_verdict
from charlm_training.run.ngram_baseline import fit_ngram
from charlm_training.run.session import train_in_terminal
from charlm_training.run.workspace import Workspace

TEXT = "the <b>cat</b> & the dog sat on the mat.\n" * 40
FETCHING = {"link", "script", "img", "iframe", "object", "embed"}


class Reader(HTMLParser):
    """Collects tags, and notices what would be fetched."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not {"src", "href"} & {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module", params=["lstm", "ngram"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("run")
    corpus = folder / "a text.txt"
    corpus.write_text(TEXT)
    options = TrainOptions(
        corpus=str(corpus),
        out=folder / "out",
        family=request.param,
        steps=40,
        size=SizeOptions(hidden_size=16) if request.param == "lstm" else SizeOptions(),
        command="charlm train 'a text.txt' --steps 40",
    )
    return train_in_terminal(options, tensorboard=False), Workspace(options.out)


@pytest.mark.slow
def test_a_page_is_self_contained_and_complete(run: Any) -> None:
    outcome, workspace = run
    shown = Reader(workspace.page.read_text(encoding="utf-8"))

    assert not FETCHING & set(shown.tags)
    assert "charlm train 'a text.txt' --steps 40" in shown.text
    for temperature in TEMPERATURES:
        assert f"Temperature {temperature:g}" in shown.text
    for text in outcome.report["samples"].values():
        assert text in shown.text
    for entry in outcome.report["validation"]:
        assert f"{entry['nats_per_token']:.4f}" in shown.text
    is_counted = outcome.report["model"]["family"] == "ngram"
    assert shown.tags.count("svg") == (0 if is_counted else 2)
    assert ("Counted in one pass" in shown.text) == is_counted


@pytest.mark.slow
def test_markup_in_a_text_stays_text(run: Any) -> None:
    outcome, workspace = run
    records = [json.loads(line) for line in workspace.log.read_text().splitlines()]
    texts = dict.fromkeys(outcome.report["samples"], "</pre><script>x")
    evil = {**outcome.report, "samples": texts}

    assert "<script" not in page(evil, records)


def test_a_log_becomes_two_curves() -> None:
    records = [
        {"event": "progressed", "progress": 0.5, "loss_nats": 2.0},
        {"event": "progressed", "progress": 1.0, "loss_nats": 1.0},
        {"event": "progressed", "progress": 1.0, "loss_nats": None},
        {"event": "evaluated", "progress": 1.0, "nats_per_token": 1.2},
        {"event": "evaluated", "progress": 1.0, "nats_per_token": None},
    ]

    history = history_of(records)

    assert history.training == [(0.5, 2.0), (1.0, 1.0), (1.0, 1.5)]
    assert history.validation == [(1.0, 1.2)]


@pytest.mark.parametrize(
    ("training", "validation", "said"),
    [
        (1.0, [2.0, 1.4, 1.6], "Overfitted: after 50%"),
        (1.0, [2.0, 1.5, 1.4], "On the way to overfitting"),
        (1.4, [2.0, 1.5, 1.42], "Underfitted"),
        (1.3, [2.0, 1.5, 1.42], "About right"),
        (1.3, [2.0], "too short"),
    ],
)
def test_a_verdict_follows_from_the_curves(
    training: float, validation: list[float], said: str
) -> None:
    steps = [index / max(len(validation) - 1, 1) for index in range(len(validation))]
    history = History(
        training=[(1.0, training)], validation=list(zip(steps, validation, strict=True))
    )

    assert fit_verdict(history).startswith(said) or said in fit_verdict(history)


NUMBERS = st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(NUMBERS, NUMBERS)), st.text(alphabet="<&>\"'$\\{}ab"))
def test_any_points_and_names_make_well_formed_svg(
    points: list[tuple[float, float]], name: str
) -> None:
    curve = Curve(name=name, x=[x for x, _ in points], y=[y for _, y in points])

    text = svg(Plot(title=name, x_label="x", y_label="y", curves=[curve], levels=[("n", 1.0)]))

    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == name
    # An SVG file begins no text with a space: names are compared without any.
    assert name in {each.text or "" for each in root.iter() if each.tag.endswith("text")} | {""}


def test_the_same_plot_is_the_same_svg_and_two_share_no_names() -> None:
    plots = [
        Plot(title=title, x_label="x", y_label="y", curves=[Curve(name="a", x=[1, 2], y=[1, 2])])
        for title in ("Loss", "Learning rate")
    ]

    assert svg(plots[0]) == svg(plots[0])
    first, second = (set(re.findall(r'clip-path="url\(#(\w+)', svg(plot))) for plot in plots)
    assert first
    assert not first & second


def test_axes_have_the_color_of_the_page_and_may_be_logarithmic() -> None:
    curve = Curve(name="a", x=[1, 2, 4, 8], y=[1, 2, 3, 4])
    linear, logarithmic = (
        svg(Plot(title="t", x_label="x", y_label="y", curves=[curve], is_log_x=is_log))
        for is_log in (False, True)
    )

    assert "#000000" not in linear
    assert "currentColor" in linear
    assert linear != logarithmic


def test_a_row_is_what_would_be_sampled_alone(read: Any) -> None:
    data = read("abcab. " * 60)
    model = fit_ngram(data, order=2)

    texts = samples_by_temperature(model, data.vocabulary, 7, num_tokens=30)

    for temperature in TEMPERATURES:
        alone = generate(
            model, [], max_new_tokens=30, seed=7, params=SamplingParams(temperature=temperature)
        )
        first, *_ = texts[f"{temperature:g}"].split(
            "\n"
        )  # what comes after the end is another text
        assert first == data.vocabulary.decode(alone.ids)


def test_texts_end_where_the_model_ends_them(read: Any) -> None:
    data = read("anna\nbob\n" * 30, unit="line")
    size = data.vocabulary.size
    model = build(ModelConfig(family="rnn", vocab_size=size, hidden_size=8, unit="line")).eval()

    texts = samples_by_temperature(model, data.vocabulary, 1, num_tokens=200)

    assert all("\n" in text for text in texts.values())
