"""What is taken from elsewhere: bounded dependencies, and nothing that runs what it reads."""

import ast
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ROOMS = ("model", "training", "server", "client")
SOURCES = sorted(path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PROJECT["project"]["optional-dependencies"]
DEPENDENCIES = [
    *PROJECT["build-system"]["requires"],
    *PROJECT["project"]["dependencies"],
    *(each for extra in EXTRAS.values() for each in extra),
]
# What runs code that was read, or writes what only they read.
RUN_WHAT_IS_READ = {
    "pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve",
    "multiprocessing", "torch.load", "torch.save", "torch.hub", "torch.package", "torch.jit.load",
    "numpy.load", "np.load", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "eval", "exec",
}  # fmt: skip
ONLY_WITH = {"allow_pickle"}  # arguments that turn such a thing on
# Processes of one run, which torchrun started with the same program, tell each other what the first
# one found; torch does that by pickles. Nothing from a file or another host's caller is among it.
AMONG_THE_PROCESSES_OF_ONE_RUN = {"training/charlm_training/process_group.py"}


@pytest.mark.parametrize("requirement", DEPENDENCIES)
def test_every_dependency_has_an_upper_bound(requirement: str) -> None:
    needed = Requirement(requirement)

    is_own = needed.name == "charlm"
    assert is_own or any(bound.operator in ("<", "<=", "==", "~=") for bound in needed.specifier)


def names_in(tree: ast.AST) -> set[str]:
    """All that a module imports or calls, and the arguments that it names."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            found |= {module.split(".")[0], *(f"{module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call):
            found |= {ast.unparse(node.func), *(word.arg for word in node.keywords if word.arg)}
    return found


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_nothing_runs_what_it_reads(path: Path) -> None:
    names = names_in(ast.parse((ROOT / path).read_text(encoding="utf-8")))

    assert not names & (RUN_WHAT_IS_READ | ONLY_WITH)
    if str(path) not in AMONG_THE_PROCESSES_OF_ONE_RUN:
        assert not [name for name in names if "_object" in name and name.startswith("dist.")]
