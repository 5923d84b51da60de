# SPDX-License-Identifier: MIT
"""The measurements of rows, kept beside the inputs: a table that takes hours need not be measured at one go."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from benchmarks.results import Result
from benchmarks.rows import Row
from benchmarks.turns import Taken


def keep(directory: Path, result: Result) -> None:
    """Write the measurements of a row, with its commands, to measured/ in the directory."""
    path = _path(directory, result.row)
    path.parent.mkdir(parents=True, exist_ok=True)
    taken = {name: [asdict(one) for one in some] for name, some in result.taken.items()}
    path.write_text(json.dumps({"commands": result.row.commands, "taken": taken}, indent=1))


def kept(directory: Path, row: Row) -> Result | None:
    """Return the earlier measurements of the row; None if it was not measured, or its commands have changed.

    Peers that were left out then may be missing.
    """
    try:
        found = json.loads(_path(directory, row).read_text())
    except FileNotFoundError:
        return None
    commands, alone = found["commands"], row.without(["*"]).commands
    if tuple(commands[: len(alone)]) != alone or not set(commands) <= set(row.commands):
        return None
    return Result(row, {name: [Taken(**one) for one in some] for name, some in found["taken"].items()})


def _path(directory: Path, row: Row) -> Path:
    return directory / "measured" / f"{row.name}.json"
