"""One class, one name: the packages of server, model and training share none."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
MIRRORED_OVER_THE_WIRE = {
    # errors, under the server's names
    *("CharlmError", "CodecMismatch", "Draining", "InvalidRequest", "ModelNotFound", "NotAllowed"),
    *("NotOffered", "QueueFull", "StateMismatch", "StateNotFound", "UnknownCharacter"),
    # parameters and results of calls
    *("Constraint", "Filling", "FinishReason", "Gap", "NextDistribution", "State", "Stopping"),
    "TopContinuations",
}


def public_classes(room: str) -> dict[str, list[str]]:
    """The files, by name, in which a package defines a top-level class."""
    found = defaultdict(list)
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    return found


def test_no_two_public_classes_of_server_model_and_training_share_a_name() -> None:
    found = defaultdict(list)
    for room in ("server", "model", "training"):
        for name, paths in public_classes(room).items():
            found[name] += paths

    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_a_client_class_shares_a_name_only_with_what_it_mirrors() -> None:
    others = {*public_classes("server"), *public_classes("model"), *public_classes("training")}
    ours = public_classes("client")

    assert set(ours) & others == MIRRORED_OVER_THE_WIRE
    assert {name: paths for name, paths in ours.items() if len(paths) > 1} == {}
