"""Lines as texts of their own: what their total counts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from charlm_client.cli.score_lines import score_lines
from charlm_client.cli.score_options import ScoreOptions


class FakeClient:
    """Every character costs a nat, and so does every end."""

    def __init__(self, unit: str) -> None:
        self.unit = unit

    async def get_model(self, name: str) -> Any:
        return SimpleNamespace(name=name, unit=self.unit)

    async def score(self, texts: list[str], *, end_of_text: bool, **_: Any) -> list[Any]:
        return [
            SimpleNamespace(total_logprob=-(len(text) + end_of_text), num_characters=len(text))
            for text in texts
        ]


@pytest.mark.parametrize(
    ("unit", "said"),
    [
        ("line", "7.000 nats over 2 lines of 7 characters: 1.4427 bits per character\n"),
        ("stream", "5.000 nats over 2 lines of 5 characters: 1.4427 bits per character\n"),
    ],
)
async def test_scored_line_ends_count_as_characters(
    unit: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "names.txt"
    path.write_text("ann\n\nbo\n")
    client: Any = FakeClient(unit)
    options = ScoreOptions(
        model="m", context="", replace_unknown=False, total_only=True, as_json=False
    )

    await score_lines(client, path, options)

    assert capsys.readouterr().out == said
