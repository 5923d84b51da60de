# SPDX-License-Identifier: MIT
"""The direction of imports, who may import a C library, and who may start a process (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

ONLY_IMPORTER = {
    "parted": "pydiskimg.partitions.make",
    "_ped": "pydiskimg.partitions.make",
    "libarchive": "pydiskimg.files.tar",
    "yaml": "ganeti_os.guest.syntax.yaml_nodes",
    "subprocess": "ganeti_os.install.scripts",
    "pty": "ganeti_os.install.scripts",
    "multiprocessing": "ganeti_os.install.scripts",
}
# A child of our own, which runs no program: mount(2) with a time limit.
MAY_FORK = "pydiskimg.host.mount_child"
STARTS_A_PROCESS = {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"}
SIZE_LIMIT = 500


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("pydiskimg", "ganeti_os"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (
                f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module
                for alias in node.names
            )


def inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


def room(module: str) -> str:
    """The folder that the module lies in; what lies at the top of a package is a room of its own."""
    is_folder = MODULES[module].name == "__init__.py"
    return module if is_folder or module.count(".") == 1 else module.rpartition(".")[0]


def arrows() -> dict[str, dict[str, str]]:
    """Each room with the rooms that it imports from, and an example of each import."""
    found: dict[str, dict[str, str]] = {}
    for module, path in MODULES.items():
        if module in ("pydiskimg", "ganeti_os"):  # the public names, which come from every room
            continue
        for imported in imports(ast.parse(path.read_text())):
            if imported in MODULES and imported not in ("pydiskimg", "ganeti_os") and room(imported) != room(module):
                found.setdefault(room(module), {})[room(imported)] = f"{module} imports {imported}"
    return found


def test_the_rooms_have_no_circle() -> None:
    left = arrows()
    while left:
        ends = {target for targets in left.values() for target in targets} - left.keys()
        free = [start for start, targets in left.items() if targets.keys() <= ends]
        assert free, f"a circle of rooms: {sorted({text for targets in left.values() for text in targets.values()})}"
        for start in free:
            del left[start]


@pytest.mark.parametrize("module", MODULES)
def test_the_packages_keep_apart(module: str) -> None:
    for imported in imports(ast.parse(MODULES[module].read_text())):
        if inside(module, "pydiskimg"):
            assert not inside(imported, "ganeti_os"), f"{module} imports {imported}"
        if inside(module, "ganeti_os") and inside(imported, "pydiskimg"):
            assert not inside(imported, "pydiskimg.cli"), f"{module} imports {imported}"
            private = [part for part in imported.split(".") if part.startswith("_")]
            assert not private, f"{module} imports {imported}: only public names"


@pytest.mark.parametrize("module", MODULES)
def test_one_importer_and_no_programs(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    for imported in imports(tree):
        owner = ONLY_IMPORTER.get(imported.split(".")[0])
        assert owner is None or inside(module, owner), f"{module} imports {imported}; only {owner} may"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            starts = node.attr in STARTS_A_PROCESS or node.attr.startswith(("exec", "spawn"))
            allowed = module == "ganeti_os.install.scripts" or (module == MAY_FORK and node.attr == "fork")
            assert not starts or allowed, f"{module}:{node.lineno} uses os.{node.attr}"


@pytest.mark.parametrize("module", MODULES)
def test_small_and_licensed(module: str) -> None:
    text = MODULES[module].read_text()
    assert text.startswith("# SPDX-License-Identifier: MIT\n"), f"{module} has no SPDX line"
    assert text.count("\n") <= SIZE_LIMIT, f"{module} is longer than {SIZE_LIMIT} lines"
