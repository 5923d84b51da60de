# SPDX-License-Identifier: MIT
"""The words of docs/architecture.md, as far as a test can check: one word for one thing."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections import defaultdict

from tests.fixtures.checkout import ROOT

SOURCES = [path for package in ("pydiskimg", "ganeti_os") for path in sorted((ROOT / package).rglob("*.py"))]
# A place may be a host offset, a file range, a location, a directory: the word that says which is used. What is changed
# in its place keeps qemu-img's word.
VAGUE = re.compile(r"(^|_)places?($|_)|Places?($|[A-Z])")
IN_PLACE = {"in_place", "is_in_place", "_place_in_group", "_place_together"}
# Told apart by their rooms, and never used in one module.
SEVERAL = {"Contents", "Kernel", "Layout", "Mapping", "Names", "Prefix", "Record", "Run", "Span"}


def test_no_name_is_a_place() -> None:
    found = {
        f"{path.relative_to(ROOT)}:{token.start[0]} {token.string}"
        for path in SOURCES
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.NAME and VAGUE.search(token.string) and token.string not in IN_PLACE
    }
    assert found == set()


def test_a_class_has_a_name_of_its_own() -> None:
    found = defaultdict(list)
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1 and name not in SEVERAL} == {}
