# SPDX-License-Identifier: MIT
"""docs/images.md: what it names is what the code takes, and its table says no more than is tried."""

from __future__ import annotations

import re

import pytest

from ganeti_os.fetch.expected_checksum import _sources
from ganeti_os.settings.image_names import COMPRESSIONS, SPELLINGS, is_file_name, type_by_ending
from tests.fixtures.checkout import ROOT
from tests.fixtures.layouts import LAYOUTS

PAGE = (ROOT / "docs" / "images.md").read_text()
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in PAGE.splitlines()
    if line.startswith("|") and "https://" in line
]


def test_twelve_distributions() -> None:
    assert len({row[0].split()[0] for row in ROWS}) >= 11
    assert len(ROWS) == 12


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_the_two_settings_of_each(row: list[str]) -> None:
    url, name = re.findall("`([^`]+)`", row[1])
    assert re.fullmatch(r"https://[!-~]+[^/]", url)
    assert is_file_name(name)
    assert type_by_ending(name) == "qemu"
    if not row[0].startswith("FreeBSD"):
        assert "rename" in row[4]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_its_checksum_file_is_one_that_is_asked_for(row: list[str]) -> None:
    name = re.findall("`([^`]+)`", row[1])[1]
    first = re.findall("`([^`]+)`", row[3])[0].replace("FILE", name)
    assert first in [source for source, _ in _sources(name)]


def test_every_layout_is_in_the_table() -> None:
    known = {row[0].split()[0].lower() for row in ROWS}
    assert {name.partition("-")[0] for name in LAYOUTS} - {"uefi"} <= known


def test_endings_and_architectures_are_named() -> None:
    words = set(re.findall(r"\w+", PAGE))
    assert {name for names in SPELLINGS for name in names} - {"armv7", "armv7hl", "powerpc64le", "loong64"} <= words
    assert all(f"`{ending}`" in PAGE for ending in COMPRESSIONS)
