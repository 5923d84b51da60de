# SPDX-License-Identifier: MIT
"""docs/adr: one heading style, one number each, and an index that names all of them."""

from __future__ import annotations

import re

from tests.fixtures.checkout import ROOT

RECORDS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))


def test_each_has_its_number_in_its_heading() -> None:
    headings = {path.name: path.read_text().splitlines()[0] for path in RECORDS}
    assert {name: line for name, line in headings.items() if not re.fullmatch(f"# {name[:4]}: [^ ].*[^.]", line)} == {}
    assert len({name[:4] for name in headings}) == len(headings)


def test_the_index_names_them_in_order() -> None:
    rows = [f"- [{path.name[:4]}]({path.name}): {path.read_text().splitlines()[0][8:]}" for path in RECORDS]
    listed = [line for line in (ROOT / "docs/adr/README.md").read_text().splitlines() if line.startswith("- [")]
    assert sorted(listed) == rows
