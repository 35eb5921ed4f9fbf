"""`python -m charlm_server.new_token NAME ROLE...`: a new token, and the lines for the file."""

import hashlib
import json
import secrets
import sys

from charlm_server.calls.callers import ROLES


def main(arguments: list[str]) -> int:
    """The token goes to the standard error, to be handed over; its lines to the standard output."""
    name, *roles = arguments or [""]
    if not name or not roles or set(roles) - set(ROLES):
        print(f"charlm: give a name and roles of {', '.join(ROLES)}.", file=sys.stderr)
        return 2
    token = secrets.token_urlsafe(32)
    digest = hashlib.sha256(token.encode()).hexdigest()
    lines = [f"name = {json.dumps(name)}", f'sha256 = "{digest}"', f"roles = {json.dumps(roles)}"]
    print("\n".join(["[[tokens]]", *lines, ""]))
    print(token, file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
