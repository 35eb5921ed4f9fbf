"""The log is JSON, complete after every line, whatever happened in the run."""

import json
import math
import sys
from pathlib import Path

import pytest

from charlm_training.errors import NotPossible, OutputFailed
from charlm_training.monitoring.events import Evaluated, Noticed, Progressed, Sampled
from charlm_training.monitoring.log import JsonLog, TensorBoardLog

PROGRESSED = Progressed(
    step=3,
    epoch=0.5,
    progress=0.25,
    loss_nats=1.5,
    bits_per_character=2.16,
    learning_rate=0.01,
    gradient_norm=0.7,
    characters_per_s=1000.0,
    elapsed_s=3.0,
    remaining_s=9.0,
)
EVALUATED = Evaluated(
    step=3,
    progress=0.25,
    nats_per_token=math.nan,
    bits_per_character=math.inf,
    is_best=False,
    elapsed_s=3.0,
)


def test_every_event_is_one_line_at_once(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "run" / "log.jsonl")

    for event in (PROGRESSED, Noticed(text="말\n")):
        log(event)

    written = (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in written]
    log.close()
    assert [record["event"] for record in records] == ["progressed", "noticed"]
    assert records[0]["loss_nats"] == 1.5
    assert records[1]["text"] == "말\n"


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    log = JsonLog(tmp_path / "log.jsonl")

    log(EVALUATED)

    log.close()
    record = json.loads((tmp_path / "log.jsonl").read_text())
    assert (record["nats_per_token"], record["bits_per_character"]) == (None, None)


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(OutputFailed, match="Cannot write the log"):
        JsonLog(tmp_path / "file" / "log.jsonl")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no full device")
def test_a_log_on_a_full_disk_is_an_error() -> None:
    log = JsonLog(Path("/dev/full"))

    with pytest.raises(OutputFailed, match="No space left on device"):
        log(PROGRESSED)
    log.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # TensorBoard's own imports warn
def test_tensorboard_gets_curves_and_samples(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    board = TensorBoardLog(tmp_path)

    for event in (PROGRESSED, EVALUATED, Sampled(step=3, text="once"), Noticed(text="note")):
        board(event)

    board.close()
    (path,) = tmp_path.iterdir()
    written = path.read_bytes()
    assert all(
        tag in written
        for tag in (b"train/loss_nats", b"validation/bits_per_character", b"sample", b"once")
    )


def test_without_tensorboard_the_command_to_install_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard.writer", None)

    with pytest.raises(NotPossible, match=r"pip install 'charlm\[tensorboard\]'"):
        TensorBoardLog(tmp_path)
