# SPDX-License-Identifier: MIT
"""The results of the table: ratios, and the page that shows them with the machine."""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench import LIMIT, OURS
from benchmarks.programs import emulated
from benchmarks.rows import Row
from benchmarks.turns import LEAST_MEMORY, Ratio, Taken, ratio
from pydiskimg.units import GIB, MIB, format_size

MOST_MEMORY = 150 * MIB
_PACKAGES = "bmap-tools bmaptool coreutils dump e2fsprogs libguestfs-tools libnbd-bin mount pigz python3 qemu-utils tar"
_PACKAGES += " xfsprogs"
_COLUMNS = "row, against, times as fast, in the rounds, by processor time, wanted, of the limit, seconds, MiB, theirs"
_HEAD = (f"| {_COLUMNS.replace(', ', ' | ')} |", "| --- " * 10 + "|")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Our command beside one peer, or beside the limit alone if there is no peer (theirs is None then)."""

    row: Row
    peer: str
    wanted: float | None
    clock: Ratio
    processor: Ratio
    theirs: Sequence[Taken]

    @property
    def reached(self) -> bool:
        """Elapsed time decides if a target is reached: only in it do all processes and threads of a command count."""
        return self.wanted is None or self.clock.median >= self.wanted


@dataclass(frozen=True, slots=True)
class Result:
    """A row with the measurements of each contender."""

    row: Row
    taken: Mapping[str, Sequence[Taken]]

    @property
    def ours(self) -> Sequence[Taken]:
        return self.taken[OURS]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """One for each peer that was measured, in their order."""
        wanted = {peer.name: peer.wanted for peer in self.row.peers}
        return tuple(
            Comparison(
                self.row,
                name,
                wanted[name],
                ratio([one.seconds for one in self.ours], [one.seconds for one in theirs]),
                ratio([one.processor for one in self.ours], [one.processor for one in theirs]),
                theirs,
            )
            for name, theirs in self.taken.items()
            if name in wanted
        )

    @property
    def of_limit(self) -> float | None:
        """How many times as long as the limit our command takes."""
        if LIMIT not in self.taken:
            return None
        return _seconds(self.ours) / _seconds(self.taken[LIMIT])


def _seconds(taken: Sequence[Taken]) -> float:
    return statistics.median(one.seconds for one in taken)


def _memory(taken: Sequence[Taken]) -> str:
    peak = max(one.memory for one in taken)
    return f"{peak / MIB:.0f}" if peak > LEAST_MEMORY else f"at most {LEAST_MEMORY // MIB}"


def lines(result: Result) -> Iterator[str]:
    """Yield the lines of the table that a row has: one for each peer."""
    limit = "" if result.of_limit is None else f"{result.of_limit:.2f}"
    if result.row.limit and result.of_limit and result.row.limit.allowed:
        allowed = result.row.limit.allowed
        limit += f" (at most {allowed:g}{'' if result.of_limit <= allowed else ': missed'})"
    ours = f"{_seconds(result.ours):.3f}", _memory(result.ours)
    if max(one.memory for one in result.ours) > MOST_MEMORY:
        ours = ours[0], f"{ours[1]}: above {MOST_MEMORY // MIB}"
    for one in result.comparisons:
        wanted = "" if one.wanted is None else f"{one.wanted:.2g}{'' if one.reached else ': missed'}"
        rounds = f"{one.clock.least:.2f} to {one.clock.most:.2f}" if len(one.theirs) > 1 else "one round"
        theirs = f"{_seconds(one.theirs):.3f} s, {_memory(one.theirs)} MiB"
        clock, processor = f"**{one.clock.median:.2f}**", f"{one.processor.median:.2f}"
        cells = (result.row.name, one.peer, clock, rounds, processor, wanted, limit, *ours, theirs)
        yield f"| {' | '.join(cells)} |"
    if not result.comparisons:
        yield f"| {' | '.join((result.row.name, 'its limit', '', '', '', '', limit, *ours, ''))} |"


def page(results: Sequence[Result], rounds: int, directory: Path) -> str:
    """Return results.md."""
    made = [line for result in results for line in lines(result)]
    rows = [f"- `{result.row.name}`: {result.row.what}{_limit(result.row)}." for result in results]
    text = (
        "# How pydiskimg compares",
        "",
        "Written by `make bench` ([how to repeat and read it](../docs/performance.md#all-measurements-in-one-table)).",
        "",
        *(f"- {line}" for line in machine(directory)),
        f"- {rounds} rounds in turns (short commands more, very slow ones as many as the row says), medians; a ratio "
        "above 1: ours is faster.",
        "",
        "![How many times as fast as its peers each row is](ratios.svg)",
        "",
        *_HEAD,
        *made,
        "",
        "What the rows are:",
        "",
        *rows,
    )
    return "\n".join((*text, ""))


def _limit(row: Row) -> str:
    return f"; the limit is {row.limit.name}" if row.limit else ""


def machine(directory: Path) -> tuple[str, ...]:
    """Describe this machine, and the versions of the programs that were measured."""
    processor = _first("/proc/cpuinfo", "model name")
    memory = int(_first("/proc/meminfo", "MemTotal").split()[0]) << 10
    kernel = os.uname()
    return (
        f"Processor: {processor}, {os.cpu_count()} cores; memory: {memory / GIB:.0f} GiB",
        f"Kernel: {kernel.sysname} {kernel.release} {kernel.machine}",
        f"Disk of the targets: {_disk(directory)}",
        f"Load when the measurements ended: {os.getloadavg()[2]:.2f} (15 minutes)",
        f"Virtual machines of virt-*: {'emulated' if emulated() else 'KVM'}",
        f"Versions: {_versions()}",
    )


def _first(path: str, field: str) -> str:
    for line in Path(path).read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return "unknown"


def _disk(directory: Path) -> str:
    words = ["findmnt", "--noheadings", "--output", "FSTYPE,SOURCE", "--target", str(directory)]
    found = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    size = os.statvfs(directory)
    return f"{' on '.join(found)}, {format_size(size.f_blocks * size.f_frsize)}"


def _versions() -> str:
    from pydiskimg import __version__

    words = ["dpkg-query", "-W", "-f", "${db:Status-Abbrev}${Package} ${Version}\n", *_PACKAGES.split()]
    found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.splitlines()
    return ", ".join((f"pydiskimg {__version__}", *(line[3:] for line in found if line.startswith("ii"))))
