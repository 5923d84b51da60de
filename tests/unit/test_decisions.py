# SPDX-License-Identifier: MIT
"""docs/adr: one heading style, one number each, and an index by room that names all of them."""

from __future__ import annotations

import re

from tests.fixtures.checkout import ROOT

RECORDS = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))


def test_each_has_its_number_in_its_heading() -> None:
    headings = {path.name: path.read_text().splitlines()[0] for path in RECORDS}
    assert {name: line for name, line in headings.items() if not re.fullmatch(f"# {name[:4]}: [^ ].*[^.]", line)} == {}
    assert len({name[:4] for name in headings}) == len(headings)


def test_the_index_lists_each_once_below_a_room() -> None:
    rows = [f"- [{path.name[:4]}]({path.name}): {path.read_text().splitlines()[0][8:]}" for path in RECORDS]
    head, *rooms = (ROOT / "docs/adr/README.md").read_text().split("\n## ")
    assert "\n- [" not in head
    listed = [[line for line in room.splitlines() if line.startswith("- [")] for room in rooms]
    assert listed == [sorted(room) for room in listed]
    assert sorted(line for room in listed for line in room) == rows
