"""Protobuf and gRPC stop at the servicers: the engine could serve any wire."""

import ast
from pathlib import Path

import pytest

import charlm_server

SPEAK_GRPC = {
    "admin_service",
    "answering",
    "app",
    "codec_service",
    "comparison_conversion",
    "constraint_conversion",
    "context_conversion",
    "conversion",
    "damaged",
    "distributions",
    "generation_conversion",
    "generation_service",
    "guard",
    "health",
    "importing",
    "inference_conversion",
    "inference_service",
    "interceptors",
    "model_conversion",
    "model_service",
    "open_calls",
    "reflection",
    "refusing",
    "resume_conversion",
    "returned_states",
    "scoring_conversion",
    "scoring_service",
    "state_conversion",
    "state_service",
    "stream_conversion",
    "tls",
    "tokenizer_service",
    "unoffered",
}
MODULES = sorted(Path(charlm_server.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_the_engine_speaks_no_wire(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    roots = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert path.stem in SPEAK_GRPC or not roots & {"charlm", "grpc", "google", "grpc_health"}
