"""`python -m charlm_server DIR`: the command `charlm serve` without the client's package."""

import typer

from charlm_server.cli import serve

if __name__ == "__main__":
    typer.run(serve)
