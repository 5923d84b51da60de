# SPDX-License-Identifier: MIT
"""How time and memory grow with the disk's size, its data, extents, files and workers: `python -m benchmarks.growth`.

A series makes inputs of several sizes and runs the same commands on each; every command is a curve.
"""

from __future__ import annotations

import math
import random
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import svg
from benchmarks.bench import Bench
from benchmarks.inputs import fragmented_disk, tarball_of
from benchmarks.options import HERE, bench, chosen, end_by_signals, parser
from benchmarks.results import machine
from benchmarks.rows_files import POPULATE
from benchmarks.turns import Surroundings, Taken, in_turns
from pydiskimg.units import GIB, KIB, MIB, format_size

# More than this many times the time for twice the size is more than linear, apart from noise.
_LINEAR = 1.1


@dataclass(frozen=True, slots=True)
class Series:
    """One thing that grows: its sizes, the maker of the input of a size, and commands, which name $input and $size."""

    title: str
    unit: str
    sizes: Sequence[int]
    small: Sequence[int]
    make: Callable[[Path, int, bool], None]
    curves: Mapping[str, str]
    shown: Callable[[float], str]
    before: str = "rm -f new"
    # Workers share the processor time, and take less elapsed time.
    by_clock: bool = False


def _count(number: float) -> str:
    for unit, letter in ((1 << 20, "Mi"), (1 << 10, "Ki")):
        if number >= unit and number % unit == 0:
            return f"{number / unit:g} {letter}"
    return f"{number:g}"


def _thousands(number: float) -> str:
    return f"{number:,.0f}"


def _sized(number: float) -> str:
    return format_size(int(number))


def _disk(path: Path, size: int, small: bool) -> None:
    """A sparse disk of a size that always holds the same data, in 64 pieces."""
    piece = 64 * KIB if small else MIB
    _pieces(path, size, 64, piece)


def _data(path: Path, amount: int, small: bool) -> None:
    """A disk of one size that holds the given amount of data, which deflates by half."""
    _pieces(path, GIB if small else 8 * GIB, 64, amount // 64)


def _pieces(path: Path, size: int, count: int, length: int) -> None:
    text = random.Random(1).randbytes(32 * KIB) + b"0123456789abcdef" * 2048
    with path.open("wb") as file:
        file.truncate(size)
        for number in range(count):
            file.seek(number * (size // count))
            for start in range(0, length, len(text)):
                file.write((b"%016d" % (number << 32 | start) + text)[: min(len(text), length - start)])


def _extents(path: Path, count: int, _small: bool) -> None:
    """A disk with the given number of pieces of 4 KiB, always 16 KiB apart, so that it grows with them."""
    fragmented_disk(path, count * 16 * KIB, count)


def _files(path: Path, count: int, _small: bool) -> None:
    tarball_of(path, count)


def _workers(path: Path, _workers: int, small: bool) -> None:
    _data(path, 8 * MIB if small else GIB, small)


_TO_QCOW2 = "pydiskimg convert -f raw -O qcow2 $input new"
_COMPRESS = "pydiskimg convert -c -f raw -O qcow2 $input new"
_TO_DEVICE = "pydiskimg convert -f raw $input new"
_POPULATED = f"$python -I -c '{POPULATE}' $input new 4096"

SERIES: dict[str, Series] = {
    "disk-size": Series(
        "Disks of different sizes with 64 MiB of data",
        "the size of the disk",
        [4**number * GIB for number in range(6)],
        [MIB * 16, MIB * 64],
        _disk,
        {"raw to raw": _TO_DEVICE, "raw to qcow2": _TO_QCOW2, "compressed": _COMPRESS},
        _sized,
    ),
    "data": Series(
        "A disk of 8 GiB with more and more data",
        "the data on the disk",
        [2**number * 64 * MIB for number in range(6)],
        [MIB, 4 * MIB],
        _data,
        {"raw to raw": _TO_DEVICE, "raw to qcow2": _TO_QCOW2, "compressed": _COMPRESS},
        _sized,
    ),
    "extents": Series(
        "Disks of more and more pieces of 4 KiB, 16 KiB apart",
        "the number of extents",
        [4**number * 1024 for number in range(6)],
        [64, 256],
        _extents,
        {"raw to raw": _TO_DEVICE, "raw to qcow2": f"{_TO_QCOW2} -o cluster_size=4k"},
        _count,
    ),
    "files": Series(
        "Tarballs of more and more files of ten bytes",
        "the number of files",
        [1_000, 10_000, 100_000, 1_000_000],
        [100, 1_000],
        _files,
        {
            "tarball to ext4": _POPULATED,
            "tar-out": "pydiskimg tar-out filled / - | cat > /dev/null",
            "check": "pydiskimg check -f raw filled",
        },
        _thousands,
        before=f"rm -f new; truncate -s $((64 * 1048576 + $size * 6000)) new; "
        f"[ -e filled ] || {{ cp --sparse=always new filled; {_POPULATED.replace(' new ', ' filled ')}; }}",
    ),
    "workers": Series(
        "The same disk by more and more workers",
        "the number of workers",
        [1, 2, 4, 8],
        [1, 2],
        _workers,
        {"compressed": f"{_COMPRESS} -m $size", "raw to qcow2": f"{_TO_QCOW2} -m $size"},
        _count,
        by_clock=True,
    ),
}


@dataclass(frozen=True, slots=True)
class Step:
    """The measurements of a size: medians of the seconds, the most memory."""

    size: int
    processor: float
    clock: float
    memory: int


def exponent(steps: Sequence[Step]) -> float:
    """Return the exponent by which processor time grows with the size in the last step: 1 is linear."""
    before, last = steps[-2:]
    return math.log(last.processor / before.processor) / math.log(last.size / before.size)


def measure(made: Bench, series: Series) -> dict[str, list[Step]]:
    """Run the commands on every size in turns, one size after the other."""
    found: dict[str, list[Step]] = {name: [] for name in series.curves}
    small = made.scale.name == "small"
    for size in series.small if small else series.sizes:
        for name, taken in _of_size(made, series, size, small).items():
            processor = statistics.median(one.processor for one in taken)
            clock = statistics.median(one.seconds for one in taken)
            found[name].append(Step(size, processor, clock, max(one.memory for one in taken)))
    return found


def _of_size(made: Bench, series: Series, size: int, small: bool) -> dict[str, list[Taken]]:
    with ExitStack() as stack:
        work = Path(stack.enter_context(TemporaryDirectory(prefix="growth-", dir=made.directory)))
        source = work / "input"
        series.make(source, size, small)
        environment = {**made.programs, "input": str(source), "size": str(size)}
        where = Surroundings(work, environment)
        contenders = {name: where.turn(series.before, command) for name, command in series.curves.items()}
        for run in contenders.values():
            run()
        return in_turns(contenders, rounds=made.rounds)


def lines(series: Series, curves: Mapping[str, Sequence[Step]]) -> Iterator[str]:
    """Yield a table: processor time and elapsed time (seconds) and memory (MiB) of each command and size."""
    sizes = [step.size for step in next(iter(curves.values()))]
    yield f"| {series.unit} | {' | '.join(series.shown(size) for size in sizes)} | exponent |"
    yield "| --- " * (len(sizes) + 2) + "|"
    for name, steps in curves.items():
        cells = [f"{step.processor:.2f} / {step.clock:.2f} s, {step.memory / MIB:.0f} MiB" for step in steps]
        last = ""
        if not series.by_clock:
            last = f"{exponent(steps):.2f}{': more than linear' if exponent(steps) > _LINEAR else ''}"
        yield f"| {name} | {' | '.join(cells)} | {last} |"


def plot(series: Series, curves: Mapping[str, Sequence[Step]]) -> str:
    """Return the SVG of a series."""
    drawn = {
        name: [svg.Point(step.size, step.clock if series.by_clock else step.processor, step.memory) for step in steps]
        for name, steps in curves.items()
    }
    return svg.growth(
        series.title, series.unit, drawn, series.shown, "the clock" if series.by_clock else "the processor"
    )


def main(argv: Sequence[str] | None = None) -> None:
    arguments = parser("Measure how time and memory grow.", "series", rounds=3).parse_args(argv)
    names = chosen(SERIES, arguments.names)
    if arguments.list:
        for name in names:
            print(f"{name:12} {SERIES[name].title}")
        return
    made = bench(arguments)
    output = arguments.output
    if output is None and not arguments.names and not arguments.small:
        output = HERE
    text = [
        "# How time and memory grow",
        "",
        "Written by `make bench-growth` ([how to read it](../docs/performance.md#how-time-and-memory-grow)).",
        "",
        *(f"- {line}" for line in machine(arguments.directory)),
        "",
    ]
    for name in names:
        series = SERIES[name]
        curves = measure(made, series)
        table = list(lines(series, curves))
        print("\n".join((f"{series.title}:", *table)), flush=True)
        text += [f"**{series.title}**", "", f"![{series.title}](growth-{name}.svg)", "", *table, ""]
        if output:
            output.mkdir(parents=True, exist_ok=True)
            (output / f"growth-{name}.svg").write_text(plot(series, curves))
    if output:
        (output / "growth.md").write_text("\n".join(text))
        print(f"written: {output / 'growth.md'}", file=sys.stderr)


if __name__ == "__main__":
    end_by_signals()
    main()
