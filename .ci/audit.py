"""A program for `make audit`: known vulnerabilities of what is installed, as pip-audit finds them.

    python .ci/audit.py PIP_AUDIT

Exits with 1 where there are any. Where its service knows no package at all, nobody could be asked:
that is said, and is no failure.
"""

import json
import subprocess
import sys


def main() -> int:
    command = [sys.argv[1], "--local", "--skip-editable", "--format", "json", "--timeout", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        packages = []
    audited = [each for each in packages if "vulns" in each]
    if not audited:
        reasons = [each["skip_reason"] for each in packages] or done.stderr.strip().splitlines()
        why = reasons[-1] if reasons else "it said nothing"
        print(f"Nothing was audited: no vulnerability service could be asked ({why}).")
        return 0
    hurt = [each for each in audited if each["vulns"]]
    for each in hurt:
        names = ", ".join(f"{v['id']} (fixed in {v['fix_versions']})" for v in each["vulns"])
        print(f"{each['name']} {each['version']}: {names}")
    print(f"{len(audited)} of {len(packages)} packages audited, {len(hurt)} with vulnerabilities.")
    return 1 if hurt else 0


if __name__ == "__main__":
    sys.exit(main())
