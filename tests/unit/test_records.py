# SPDX-License-Identifier: MIT
"""The tables of binary records, which are read when they are first used: here all of them are."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from pydiskimg.records import Record
from tests.fixtures.checkout import ROOT


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = [module_name(path) for path in sorted((ROOT / "pydiskimg").rglob("*.py")) if "Record(" in path.read_text()]


@pytest.mark.parametrize("module", MODULES)
def test_the_margins_of_every_table_hold(module: str) -> None:
    records = [value for value in vars(import_module(module)).values() if isinstance(value, Record)]
    assert all(record.names and len(record.pack()) == record.size for record in records)


@pytest.mark.parametrize("table", ["00 I first\n08 I second", "00 I first", "00 I first\n04 Q second"])
def test_a_wrong_margin_or_size_is_noticed(table: str) -> None:
    record = Record("wrong", "<", 8, table)
    with pytest.raises(AssertionError):
        record.unpack(bytes(8))


def test_what_a_record_has_not_is_an_error() -> None:
    with pytest.raises(AttributeError, match="a Record has no lenght"):
        Record("right", "<", 4, "0 I first").lenght  # type: ignore[attr-defined]  # noqa: B018
