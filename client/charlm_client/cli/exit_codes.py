"""Exit codes, and errors as one line instead of a traceback."""

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
    """Exit with a message and an exit code for any error inside.

    The standard output is flushed here too, because a full disk is an error only then.
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
    except BrokenPipeError:  # the reader of the pipe has closed it
        _discard_unwritten_output()
        sys.exit(EXIT_ERROR)
    except OSError as error:
        _discard_unwritten_output()
        _fail(f"{error.filename or 'The output'} cannot be written: {error.strerror}.", EXIT_ERROR)


def _discard_unwritten_output() -> None:
    """Otherwise Python flushes again at exit and prints a second error."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(message: str, code: int) -> NoReturn:
    print(f"charlm: {message}", file=sys.stderr)
    sys.exit(code)
