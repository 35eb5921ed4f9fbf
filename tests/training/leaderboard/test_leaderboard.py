"""A leaderboard compares like with like and claims no more than its runs show."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import typer

from charlm_model.config import ModelConfig
from charlm_model.families.registry import build
from charlm_training.budget import TimeBudget
from charlm_training.corpus.dataset import DataOptions
from charlm_training.errors import Interrupted, InvalidOption
from charlm_training.flags import clear_errors
from charlm_training.leaderboard.compare import Leaderboard, LeaderboardOptions, compare
from charlm_training.leaderboard.equal_cost import EntryPlanner, flops_per_token, width_for
from charlm_training.leaderboard.output import curves, save
from charlm_training.leaderboard.standing import Standing, verdict
from charlm_training.planning.plan import Planner

TEXT = "the cat sat on the mat.\nthe dog sat on the cat.\n" * 60


def standing(family: str, nats: float, sd: float = 0.0, num_seeds: int = 1) -> Standing:
    return Standing(
        family=family, num_seeds=num_seeds, nats=nats, sd=sd, bits_per_character=nats,
        num_parameters=1, tokens=1.0, seconds=1.0,
    )  # fmt: skip


def runner(tmp_path: Path, **changes: Any) -> LeaderboardOptions:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    data = DataOptions()
    return LeaderboardOptions(
        **{"corpus": str(path), "families": ["lstm"], "data": data, **changes}
    )


@pytest.mark.slow
@pytest.mark.parametrize("family", ["rnn", "gru", "lstm", "transformer"])
@pytest.mark.parametrize("wanted", [20_000, 100_000])
def test_no_other_width_comes_nearer_to_the_wanted_parameters(family: str, wanted: int) -> None:
    config = ModelConfig(family=family, vocab_size=50, num_layers=4, num_heads=2)
    unit = 8 if family == "transformer" else 1
    width = width_for(config, wanted)

    def distance(hidden_size: int) -> int:
        model = build(ModelConfig(**{**config.to_json(), "hidden_size": hidden_size}))
        return abs(model.num_parameters - wanted)

    assert distance(width) <= min(distance(width - unit), distance(width + unit))


def test_the_arithmetic_of_an_lstm_is_that_of_its_matrices() -> None:
    V, E, H = 30, 16, 24
    config = ModelConfig(family="lstm", vocab_size=V, embedding_size=E, hidden_size=H)

    assert flops_per_token(build(config)) == 6 * (4 * H * (E + H) + H * V)


def test_attention_is_arithmetic_too() -> None:
    def flops(context_length: int) -> float:
        sizes = {"hidden_size": 16, "num_layers": 3, "num_heads": 2, "vocab_size": 30}
        config = ModelConfig(family="transformer", context_length=context_length, **sizes)
        return flops_per_token(build(config))

    assert flops(64) - flops(32) == 6 * 2 * 3 * 16 * 32


@pytest.mark.slow
def test_equal_parameters_are_equal_within_a_twentieth(read: Any, clock: Any) -> None:
    clock.tick_s = 0.01
    planner = EntryPlanner(data=read(TEXT), seconds=30.0, clock=clock)
    config = ModelConfig(family="rnn", vocab_size=planner.data.vocabulary.size)

    entries = planner.entries(["rnn", "lstm", "gru"], "parameters")

    counts = [
        build(
            ModelConfig(
                **{
                    **config.to_json(),
                    "family": entry.family,
                    "hidden_size": entry.size.hidden_size,
                }
            )
        ).num_parameters
        for entry in entries
    ]
    assert max(counts) < 1.05 * min(counts)


@pytest.mark.slow
def test_equal_parameters_are_those_of_layers_not_of_tables(read: Any, clock: Any) -> None:
    """A table of pairs of tokens would leave a recurrent layer a width of one."""
    clock.tick_s = 0.01
    planner = EntryPlanner(data=read(TEXT * 20), seconds=30.0, clock=clock)

    entries = planner.entries(["transformer", "rnn", "gru", "lstm"], "parameters")

    assert {entry.size.kernel_size for entry in entries} == {1}
    counts = []
    for entry in entries:
        planner = Planner(entry.family, planner.data, TimeBudget(30.0, clock), entry.size, clock)
        config = planner.plan(seed=0).config
        assert config.pair_rows == 0
        counts.append(build(config).num_parameters)
    assert max(counts) < 1.2 * min(counts)


@pytest.mark.slow
def test_everyone_sees_the_same_windows(tmp_path: Path, clock: Any) -> None:
    clock.tick_s = 0.05
    outcome = compared(tmp_path, clock, ["ngram", "rnn", "transformer"], "flops")

    shapes = {
        (run["training"]["batch_size"], run["training"]["window_length"])
        for run in outcome.document["runs"]
        if run["family"] != "ngram"
    }
    assert len(shapes) == 1


@pytest.mark.slow
def test_the_table_the_plot_and_the_verdict_agree(tmp_path: Path, clock: Any) -> None:
    clock.tick_s = 0.02
    outcome = compared(tmp_path, clock, ["ngram", "rnn"], "seconds")

    paths = save(outcome.document, outcome.results, tmp_path / "board")

    assert [path.name for path in paths] == [f"leaderboard.{k}" for k in ("json", "csv", "png")]
    rows = list(csv.DictReader(paths[1].read_text().splitlines()))
    assert [row["family"] for row in rows] == [each.family for each in outcome.standings]
    assert rows[0]["family"] in json.loads(paths[0].read_text())["verdict"]
    assert paths[2].read_bytes().startswith(b"\x89PNG")
    plot = curves(outcome.results)
    assert {curve.name for curve in plot.curves} == {"rnn"}
    assert [name for name, _ in plot.levels] == ["ngram"]


def compared(tmp_path: Path, clock: Any, families: list[str], match: str) -> Leaderboard:
    options = runner(tmp_path, families=families, match=match, budget="4s", num_seeds=1)
    return compare(options, lambda: False, lambda line: None, clock)


def test_an_interruption_before_any_run_is_an_error(tmp_path: Path, clock: Any) -> None:
    with pytest.raises(Interrupted, match="nothing to rank"):
        compare(runner(tmp_path), lambda: True, lambda line: None, clock)


def test_an_interruption_has_the_exit_code_of_ctrl_c() -> None:
    with pytest.raises(typer.Exit) as ended, clear_errors():
        raise Interrupted("Interrupted before the first run was done.")

    assert ended.value.exit_code == 130


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"families": ["lstm", "rrn"]}, "rrn"),
        ({"families": ["lstm", "lstm"]}, "each family once"),
        ({"match": "luck"}, "luck"),
        ({"num_seeds": 0}, "--seeds is 0"),
        ({"budget": "soon"}, "soon"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidOption, match=said):
        runner(tmp_path, **changes)


def test_a_verdict_compares_the_lead_with_the_spread_of_seeds() -> None:
    clear = [standing("lstm", 1.5, 0.01, 3), standing("rnn", 1.7, 0.01, 3)]
    unclear = [standing("lstm", 1.5, 0.2, 3), standing("rnn", 1.6, 0.2, 3)]
    single = [standing("lstm", 1.5), standing("rnn", 1.6)]

    assert "more than seeds explain" in verdict(clear, "seconds")
    assert "seeds alone could explain" in verdict(unclear, "seconds")
    assert "the spread between seeds is unknown" in verdict(single, "seconds")
    assert "no other family" in verdict(single[:1], "seconds")
