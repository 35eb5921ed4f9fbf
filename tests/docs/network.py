"""A network of its own for the commands of the documents, which all name the default port.

A network namespace gives every run 127.0.0.1:50051 for itself, and proves that nothing is fetched.
Where the kernel allows none to this user, runs take turns by a lock.
"""

import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The loopback device of a new namespace is down: SIOCGIFFLAGS, IFF_UP, SIOCSIFFLAGS.
HOLDER = """
import fcntl, socket, struct, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    request = struct.pack("16sh14x", b"lo", 0)
    name, flags = struct.unpack("16sh14x", fcntl.ioctl(control, 0x8913, request))
    fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", name, flags | 1))
print("up", flush=True)
sys.stdin.read()
"""


@contextmanager
def own_network() -> Iterator[list[str]]:
    """The words to put before a command, so that it runs in that network."""
    command = ["unshare", "--map-root-user", "--net", sys.executable, "-c", HOLDER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    try:
        holder = subprocess.Popen(command, **pipes)
    except FileNotFoundError:
        holder = None
    if holder is not None:
        with holder:
            if holder.stdout.readline() == b"up\n":
                yield [
                    "nsenter",
                    "--target",
                    str(holder.pid),
                    "--user",
                    "--net",
                    "--preserve-credentials",
                    "--",
                ]
                return
    with locked(Path(tempfile.gettempdir()) / f"charlm-default-port-{os.getuid()}.lock"):
        yield []


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
