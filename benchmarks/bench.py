# SPDX-License-Identifier: MIT
"""Measure a row: make its inputs, prepare each turn, judge our result once, and then take turns."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.inputs import INPUTS
from benchmarks.programs import PATH, emulated
from benchmarks.rows import Row
from benchmarks.scale import Scale
from benchmarks.targets import TARGETS
from benchmarks.turns import Surroundings, Taken, in_turns

OURS = "pydiskimg"
LIMIT = "limit"
# What a command names: an input, a target, a number, or a variable of its own.
NAME = re.compile(r"\$\{?([a-z][a-z0-9_]*)")


@dataclass(frozen=True)
class Bench:
    """Where inputs are kept, where targets are made, and how large they are."""

    kept: Path
    directory: Path
    temporary: Path
    scale: Scale
    rounds: int

    def measure(self, row: Row) -> dict[str, list[Taken]]:
        """Return the measurements of our command, the limit and each available peer in each round, by name."""
        with ExitStack() as stack:
            work = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=self.directory)))
            where = Surroundings(work, self.environment(row.commands, work, stack))
            commands = {OURS: row.ours, **{peer.name: peer.command for peer in row.peers if peer.available}}
            if row.limit:
                commands[LIMIT] = row.limit.command
            contenders = {name: where.turn(row.before, command) for name, command in commands.items()}
            few = {peer.name: peer.rounds for peer in row.peers if peer.rounds is not None}
            for name in [name for name in contenders if name not in few]:  # the inputs are in memory from here on
                contenders[name]()
                if name == OURS and row.check:
                    where.run(row.check)
            return in_turns(contenders, rounds=self.rounds * row.times_as_many_rounds, few=few)

    def environment(self, commands: tuple[str, ...], work: Path, stack: ExitStack) -> Mapping[str, str]:
        """Make all that the commands name, and return the environment that they run in; targets end with the stack."""
        values = dict(self.programs)
        for name in dict.fromkeys(name for command in commands for name in NAME.findall(command)):
            if name in INPUTS:
                values[name] = str(self.input(name))
            elif name in TARGETS:
                values[name] = stack.enter_context(TARGETS[name](work, self))
            elif name in self.scale.numbers:
                values[name] = str(self.scale.numbers[name])
        values["temporary"] = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", dir=self.temporary))
        return values

    def input(self, name: str) -> Path:
        """Return an input, which is made unless it exists."""
        path = self.kept / name
        if not path.exists():
            print(f"making {path}", file=sys.stderr, flush=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix="making-", dir=self.kept) as unfinished:
                made = Path(unfinished, name)
                INPUTS[name](made, self)
                made.rename(path)
        return path

    @cached_property
    def programs(self) -> Mapping[str, str]:
        """The installed command before all others: from a checkout, Python may have to compile the modules first."""
        virtual = {"LIBGUESTFS_BACKEND": "direct"}
        if emulated():
            virtual["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        here = Path(__file__)
        ours = {name: str(here.with_name(f"{name}.py")) for name in ("inflate", "deflate")} | {"python": sys.executable}
        return {**inherited, "PATH": PATH, "LC_ALL": "C.UTF-8", **ours, **virtual}
