"""Makes the Python code of the wire contract; `--check` only says whether it is up to date."""

import filecmp
import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).parent
PACKAGE = Path("charlm/v1")
OUTPUTS = (("python", ""), ("grpc_python", ""), ("mypy", "quiet:"), ("mypy_grpc", "quiet:"))
PROTOS = sorted((ROOT / PACKAGE).glob("*.proto"))


def main() -> None:
    if "--check" in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            generate(Path(folder))
            stale = differing(Path(folder))
        if stale:
            sys.exit(f"Generated code is out of date ({', '.join(stale)}). Run: make gen")
    else:
        generate(ROOT)


def generate(out: Path) -> None:
    includes = [f"-I{ROOT}", f"-I{files('grpc_tools') / '_proto'}"]
    outputs = [f"--{kind}_out={option}{out}" for kind, option in OUTPUTS]
    plugins = [
        f"--plugin=protoc-gen-{name}={Path(sys.executable).with_name(f'protoc-gen-{name}')}"
        for name in ("mypy", "mypy_grpc")
    ]
    if protoc.main(["protoc", *includes, *plugins, *outputs, *map(str, PROTOS)]):
        sys.exit("protoc failed; its message is above")


def differing(folder: Path) -> list[str]:
    made = {path.name for path in (folder / PACKAGE).iterdir()}
    kept = {path.name for path in (ROOT / PACKAGE).glob("*_pb2*.py*")}
    _, changed, missing = filecmp.cmpfiles(folder / PACKAGE, ROOT / PACKAGE, made, shallow=False)
    return sorted({*changed, *missing, *(kept - made)})


if __name__ == "__main__":
    main()
