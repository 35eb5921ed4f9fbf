"""`make audit` fails for what is known to be vulnerable, and only for that."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

AUDIT = Path(__file__).parents[2] / ".ci" / "audit.py"
SAFE = {"name": "safe", "version": "1", "vulns": []}
HURT = {"name": "hurt", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "unknown", "skip_reason": "not found on PyPI"}


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([SAFE, UNKNOWN], 0, "1 of 2 packages audited, 0 with vulnerabilities"),
        ([SAFE, HURT], 1, "hurt 2: PYSEC-1 (fixed in ['3'])"),
        ([UNKNOWN], 0, "no vulnerability service could be asked (not found on PyPI)"),
        (None, 0, "no vulnerability service could be asked (no route)"),
    ],
)
def test_an_audit_tells(
    tmp_path: Path, packages: list[object] | None, status: int, said: str
) -> None:
    answer = "" if packages is None else json.dumps({"dependencies": packages})
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(
        f"#!{sys.executable}\nimport sys\nprint({answer!r})\nprint('no route', file=sys.stderr)\n"
    )
    stand_in.chmod(0o755)

    done = subprocess.run(
        [sys.executable, str(AUDIT), str(stand_in)], capture_output=True, text=True, check=False
    )

    assert done.returncode == status
    assert said in done.stdout
