"""The longest import chain inside each package, and import circles; lazy imports count.

python .ci/import_depth.py            # a line a package, with its longest chain
"""

from graphlib import TopologicalSorter

import grimp

LIMITS = {"charlm_server": 16, "charlm_model": 12, "charlm_client": 12, "charlm_training": 12}


def longest_chain(package: str) -> list[str]:
    """Modules from the one that imports to the one that is imported.

    Raises graphlib.CycleError, with the modules of a circle, where there is one.
    """
    graph = grimp.build_graph(package, cache_dir=None)
    imported = {each: graph.find_modules_directly_imported_by(each) for each in graph.modules}
    chains: dict[str, list[str]] = {}
    for module in TopologicalSorter(imported).static_order():
        below = max((chains[each] for each in imported[module]), key=len, default=[])
        chains[module] = [module, *below]
    return max(chains.values(), key=len)


def main() -> None:
    for package, limit in LIMITS.items():
        chain = longest_chain(package)
        names = (module.removeprefix(f"{package}.") for module in chain)
        print(f"{package}: {len(chain)} of at most {limit}\n  {' > '.join(names)}")


if __name__ == "__main__":
    main()
