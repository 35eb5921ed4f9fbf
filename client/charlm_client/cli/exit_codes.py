"""How a command ends: in a sentence instead of a traceback, and with a status."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from charlm_client.errors import CharlmError

EXIT_ERROR = 1
EXIT_INTERRUPTED = 130


@contextmanager
def exiting_with_a_message() -> Iterator[None]:
    """Leave the process in order, whatever goes wrong inside.

    A full disk shows when what was printed is written out, so that is done here too.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except CharlmError as error:
        _fail(str(error), EXIT_ERROR)
    except KeyboardInterrupt:
        _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # nobody reads on, which is no mistake
        _discard_unwritten_output()
        sys.exit(EXIT_ERROR)
    except OSError as error:
        _discard_unwritten_output()
        _fail(f"{error.filename or 'The output'} cannot be written: {error.strerror}.", EXIT_ERROR)


def _discard_unwritten_output() -> None:
    """Or Python would try once more, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> NoReturn:
    print(f"charlm: {message}", file=sys.stderr)
    sys.exit(code)
