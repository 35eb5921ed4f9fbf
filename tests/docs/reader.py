"""A reader who types in a document, block by block, in one folder."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType

from tests.docs.blocks import Block, Command, blocks, commands, words
from tests.docs.exceptions import AT_WORK, INTERRUPTED, NOT_RUN, exception

SHELL = ["bash", "-euo", "pipefail", "-c"]
SNIPPET_RUNNER = Path(__file__).with_name("run_snippet.py")
DEFAULT_PORT = "50051"
READY = "serving models/"
TIMEOUT_S = 240.0
SECONDS_AT_WORK = 0.5


class Reader:
    """Runs the blocks of documents; variables stay from one to the next, servers until the end."""

    def __init__(self, folder: Path, network: list[str]) -> None:
        self._folder, self._network = folder, network
        self._variables = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        self._servers: dict[str, Server] = {}

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._servers.values():
            server.stop()

    def read(self, document: str) -> None:
        self._drop_what_it_makes(document)
        for block in blocks(document):
            if block.title:
                path = self._folder / block.title
                path.parent.mkdir(exist_ok=True)
                path.write_text(block.text, encoding="utf-8")
            if block.language == "sh":
                self._type(commands(block))
            if block.language == "python":
                self._run_python(block)

    def _drop_what_it_makes(self, document: str) -> None:
        """The reader has no checkpoint that the document is about to train."""
        shell = [block for block in blocks(document) if block.language == "sh"]
        for command in (command for block in shell for command in commands(block)):
            given = words(command.text)
            if given[:2] == ["charlm", "train"] and not exception(command.text, NOT_RUN):
                out = self._folder / given[given.index("--out") + 1]
                shutil.rmtree(out, ignore_errors=True)

    def _type(self, given: list[Command]) -> None:
        script: list[Command] = []
        for command in given:
            if exception(command.text, NOT_RUN):
                continue
            if not _serves(command) and not exception(command.text, INTERRUPTED):
                script.append(command)
                continue
            self._run(script)
            script = []
            if _serves(command):
                self.serve(command)
            else:
                self._interrupt(command)
        self._run(script)

    def _run(self, script: list[Command]) -> None:
        if not script:
            return
        kept = self._folder.parent / "variables"
        text = "\n".join(command.text for command in script)
        self._finish(script[0].place, [*SHELL, f"{text}\nenv -0 > '{kept}'"])
        pairs = kept.read_text(encoding="utf-8").split("\0")
        self._variables = dict(pair.split("=", 1) for pair in pairs if pair)

    def _run_python(self, block: Block) -> None:
        path = self._folder.parent / "snippet.py"
        path.write_text(block.text, encoding="utf-8")
        self._finish(block.place, ["python", str(SNIPPET_RUNNER), str(path)])

    def _finish(self, place: str, command: list[str]) -> None:
        with self._begun(command) as process:
            try:
                output, _ = process.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                output, _ = process.communicate()
        assert process.returncode == 0, f"{place}: exit code {process.returncode}\n{output}"

    def _interrupt(self, command: Command) -> None:
        """Ctrl-C, SIGINT to the whole group, once the command is at work."""
        with self._begun([*SHELL, command.text]) as process:
            last_resort = threading.Timer(TIMEOUT_S, os.killpg, (process.pid, signal.SIGKILL))
            last_resort.start()
            told = _until(process, AT_WORK)
            time.sleep(SECONDS_AT_WORK)
            os.killpg(process.pid, signal.SIGINT)
            rest, _ = process.communicate()
            last_resort.cancel()
        assert process.returncode in (0, 130), (
            f"{command.place}: exit code {process.returncode}\n{told}{rest}"
        )

    def serve(self, command: Command) -> None:
        """Where a server of the document has the port, it is ended first: it has one terminal."""
        given = words(command.text)
        port = given[given.index("--port") + 1] if "--port" in given else DEFAULT_PORT
        if port in self._servers:
            self._servers.pop(port).stop()
        process = self._begun([*SHELL, command.text])
        self._servers[port] = Server(command.place, process)
        self._servers[port].wait_until_ready()

    def _begun(self, command: list[str]) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._network, *command],
            cwd=self._folder,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


class Server:
    def __init__(self, place: str, process: "subprocess.Popen[str]") -> None:
        self._place, self._process = place, process

    def wait_until_ready(self) -> None:
        told = _until(self._process, READY)
        assert READY in told, f"{self._place}: no server\n{told}"

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGINT)
        output, _ = self._process.communicate(timeout=TIMEOUT_S)
        code = self._process.returncode
        assert code == 0, f"{self._place}: the server ended with {code}\n{output}"


def _until(process: "subprocess.Popen[str]", sign: str) -> str:
    """What a process tells up to the line that has the sign, or up to its end."""
    told = ""
    assert process.stdout is not None
    while sign not in told and (line := process.stdout.readline()):
        told += line
    return told


def _serves(command: Command) -> bool:
    return words(command.text)[:2] == ["charlm", "serve"]
