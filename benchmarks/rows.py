# SPDX-License-Identifier: MIT
"""The declaration of a row of the table.

Commands are those of a shell. $NAME is an input, a target or a number of the bench (inputs.py, targets.py), which is
made when a command names it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.programs import PATH


def installed(*needed: str) -> bool:
    """Tell whether programs, and files (patterns that begin with /), are on this machine."""
    for name in needed:
        if name.startswith("/"):
            if not any(Path("/").glob(name[1:])):
                return False
        elif not shutil.which(name, path=PATH):
            return False
    return True


@dataclass(frozen=True, slots=True)
class Peer:
    """Another command for the same result; wanted: how many times as fast ours is to be.

    The command is measured if its first word and all of needs are installed. One that takes many minutes is measured
    in the first rounds only, without a turn before them.
    """

    name: str
    command: str
    wanted: float | None = None
    needs: tuple[str, ...] = ()
    rounds: int | None = None
    when: Callable[[], bool] = lambda: True

    @property
    def available(self) -> bool:
        return installed(*(self.needs or (self.command.split(maxsplit=1)[0],))) and self.when()


@dataclass(frozen=True, slots=True)
class Limit:
    """The work that no command can avoid; allowed: how many times as long ours may take."""

    name: str
    command: str
    allowed: float | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One comparison. before prepares every turn, check judges the result of ours; neither is measured.

    A short command takes several times as many rounds.
    """

    name: str
    what: str
    ours: str
    peers: tuple[Peer, ...] = ()
    limit: Limit | None = None
    before: str = ""
    check: str = ""
    times_as_many_rounds: int = 1

    def without(self, patterns: Sequence[str]) -> Row:
        """Return the row without the peers whose names match a pattern."""
        peers = tuple(peer for peer in self.peers if not any(fnmatch(peer.name, one) for one in patterns))
        return replace(self, peers=peers)

    @property
    def commands(self) -> tuple[str, ...]:
        """All commands, except those of peers that are not available."""
        limit = (self.limit.command,) if self.limit else ()
        theirs = (peer.command for peer in self.peers if peer.available)
        return (self.before, self.ours, self.check, *limit, *theirs)
