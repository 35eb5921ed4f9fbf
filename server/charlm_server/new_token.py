"""`python -m charlm_server.new_token NAME ROLE...` makes a token for the file of --tokens."""

import hashlib
import json
import secrets
import sys

from charlm_server.calls.callers import ROLES


def main(arguments: list[str]) -> int:
    """Prints the token to standard error, and its lines for the TOML file to standard output."""
    name, *roles = arguments or [""]
    if not name or not roles or set(roles) - set(ROLES):
        print(_usage(arguments), file=sys.stderr)
        return 2
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    lines = [f"name = {json.dumps(name)}", f'sha256 = "{digest}"', f"roles = {json.dumps(roles)}"]
    print("\n".join(["[[tokens]]", *lines, ""]))
    print(token, file=sys.stderr)
    return 0


def _usage(arguments: list[str]) -> str:
    unknown = sorted(set(arguments[1:]) - set(ROLES))
    fault = f"ROLE is {unknown[0]!r}; it must be" if unknown else "Give NAME and at least one ROLE:"
    return f"charlm: {fault} {', '.join(ROLES[:-1])} or {ROLES[-1]}."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
