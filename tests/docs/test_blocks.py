"""What the documents print is well-formed, and names only what exists."""

import json
import re
import subprocess
import tomllib

import pytest
import yaml

from tests.docs import test_served, test_with_servers
from tests.docs.blocks import Block, Command, blocks, commands, documents, inline_code
from tests.docs.blocks import words as words_of
from tests.docs.command_line import options, problems
from tests.docs.exceptions import INTERRUPTED, NOT_RUN, exception

READERS = {"json": json.loads, "toml": tomllib.loads, "yaml": yaml.safe_load}
LANGUAGES = {"sh", "python", "promql", "proto", "text", *READERS}
RUN = {*test_served.DOCUMENTS, *test_with_servers.DOCUMENTS, "docs/training.md"}
BLOCKS = [block for document in documents() for block in blocks(document)]
COMMANDS = [command for block in BLOCKS if block.language == "sh" for command in commands(block)]
PAST = ("CHANGELOG.md", "docs/decisions/")  # they tell of files and flags of their day


def place(item: Block | Command) -> str:
    return item.place


@pytest.mark.parametrize("document", documents())
def test_every_block_says_its_language(document: str) -> None:
    text = blocks(document)

    assert {block.language for block in text} <= LANGUAGES


def test_every_document_with_something_to_run_is_run() -> None:
    assert {block.document for block in BLOCKS if block.language in ("sh", "python")} == RUN


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language in READERS], ids=place
)
def test_data_can_be_read(block: Block) -> None:
    assert READERS[block.language](block.text)


@pytest.mark.parametrize("patterns", [NOT_RUN, INTERRUPTED], ids=["not run", "interrupted"])
def test_no_exception_is_left_over(patterns: dict[str, object]) -> None:
    used = {exception(command.text, patterns) for command in COMMANDS}

    assert used - {""} == set(patterns)


@pytest.mark.parametrize(
    "command", [each for each in COMMANDS if exception(each.text, NOT_RUN)], ids=place
)
def test_a_command_that_is_not_run_is_well_formed(command: Command) -> None:
    checked = subprocess.run(["bash", "-n", "-c", command.text], capture_output=True, text=True)

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=place)
def test_what_a_command_names_exists(command: Command) -> None:
    assert not problems(words_of(command.text))


@pytest.mark.parametrize("document", [name for name in documents() if not name.startswith(PAST)])
def test_what_the_prose_names_exists(document: str) -> None:
    flags = options()
    for code in inline_code(document):
        words = code.replace("'", "").split()
        assert not problems(words), code
        assert words[0] in flags or not re.fullmatch("--[a-z-]+", words[0]), code
