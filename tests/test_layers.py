# SPDX-License-Identifier: MIT
"""The direction of imports, who may import a C library, and who may start a process (docs/architecture.md)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Longest prefix wins. A module imports its own layer and lower ones only.
LAYERS = {
    "pydiskimg.errors": 0,
    "pydiskimg.units": 0,
    "pydiskimg.extents": 0,
    "pydiskimg.range_list": 0,
    "pydiskimg.protocols": 1,
    "pydiskimg.linux": 1,
    "pydiskimg.formats": 2,
    "pydiskimg.targets": 2,
    "pydiskimg.fs": 2,
    "pydiskimg": 3,
    "pydiskimg.cli": 4,
    "pydiskimg.__main__": 4,
    "ganeti_os": 4,
}
APART = ("pydiskimg.formats", "pydiskimg.targets", "pydiskimg.fs")
ONLY_IMPORTER = {
    "parted": "pydiskimg.partition",
    "_ped": "pydiskimg.partition",
    "libarchive": "pydiskimg.archive",
    "yaml": "ganeti_os.guest.network.yaml_nodes",
    "subprocess": "ganeti_os.hooks",
    "pty": "ganeti_os.hooks",
    "multiprocessing": "ganeti_os.hooks",
}
# A child of our own, which runs no program: mount(2) with a time limit.
MAY_FORK = "pydiskimg.mounting"
STARTS_A_PROCESS = {"system", "popen", "fork", "forkpty", "posix_spawn", "posix_spawnp"}
SIZE_LIMIT = 500


def modules() -> Iterator[tuple[str, Path]]:
    for package in ("pydiskimg", "ganeti_os"):
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


MODULES = dict(modules())


def layer(module: str) -> int:
    while module not in LAYERS:
        module = module.rpartition(".")[0]
    return LAYERS[module]


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


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    tree = ast.parse(MODULES[module].read_text())
    for imported in imports(tree):
        if imported.split(".")[0] not in ("pydiskimg", "ganeti_os"):
            continue
        assert layer(imported) <= layer(module), f"{module} imports {imported}, which is above it"
        if inside(module, "pydiskimg"):
            assert not inside(imported, "ganeti_os"), f"{module} imports {imported}"
        for package in APART:
            if inside(module, package):
                strangers = [other for other in APART if other != package and inside(imported, other)]
                assert not strangers, f"{module} imports {imported}"
        if inside(module, "ganeti_os") and inside(imported, "pydiskimg"):
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
            allowed = module == "ganeti_os.hooks" or (module == MAY_FORK and node.attr == "fork")
            assert not starts or allowed, f"{module}:{node.lineno} uses os.{node.attr}"


@pytest.mark.parametrize("module", MODULES)
def test_small_and_licensed(module: str) -> None:
    text = MODULES[module].read_text()
    assert text.startswith("# SPDX-License-Identifier: MIT\n"), f"{module} has no SPDX line"
    assert text.count("\n") <= SIZE_LIMIT, f"{module} is longer than {SIZE_LIMIT} lines"
