"""The commands of the other packages: listed here, found by entry point, imported only when run."""

from dataclasses import dataclass
from importlib.metadata import entry_points

import typer

from charlm_client.errors import CharlmError

ENTRY_POINT_GROUP = "charlm.commands"


@dataclass(frozen=True, slots=True)
class Plugin:
    """A command of another package: one line of help, and the extra that installs it."""

    help: str
    extra: str


PLUGINS: dict[str, Plugin] = {
    "train": Plugin("Train a model on a text: a file, folder, glob or builtin text.", "training"),
    "evaluate": Plugin(
        "Evaluate a checkpoint on a text, by the protocols of its report.", "training"
    ),
    "leaderboard": Plugin("Compare all model families on a text at equal cost.", "training"),
    "diagnose": Plugin(
        "Measure gradients, truncation, context length, order and memorization.", "training"
    ),
    "export": Plugin("Export a checkpoint for other runtimes.", "training"),
    "serve": Plugin("Serve checkpoints over gRPC.", "server"),
    "serve-ray": Plugin("Serve checkpoints as replicas on a Ray cluster.", "ray"),
}


class NotInstalled(CharlmError):
    """The package of the command is not installed."""


def list_in(app: typer.Typer) -> None:
    """Show the plugins in the app's help. `load` runs them, not this app."""
    for name, plugin in PLUGINS.items():
        app.command(name, help=plugin.help, rich_help_panel="Training and serving")(_listed_only)


def load(name: str) -> typer.Typer:
    """An app of the one command. Raises NotInstalled, saying what to install."""
    try:
        (entry_point,) = entry_points(group=ENTRY_POINT_GROUP, name=name)
        function = entry_point.load()
    except (ValueError, ImportError):
        extra = PLUGINS[name].extra
        raise NotInstalled(
            f"charlm {name} needs the {extra} extra. Run: pip install 'charlm[{extra}]'"
        ) from None
    app = typer.Typer(add_completion=False, rich_markup_mode="rich")
    app.command()(function)
    return app


def _listed_only() -> None:
    raise AssertionError("a plugin is run through its own app")
