# SPDX-License-Identifier: MIT
"""One process of the fuzzer: changes an image, puts it through a target, and tells what came of it.

Every case is a number: the seed image, the changes and the target follow from it. Before it is tried its number goes
into the file `current`, so that the parent knows what was at fault when this process dies or hangs.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

from tests.fuzz.mutations import find_places, mutate
from tests.fuzz.qemu import compare_with_qemu
from tests.fuzz.targets import TARGETS, outcome

SECONDS = 2.0
MEMORY = 256 << 20
# Address space is more than memory: stacks and arenas of threads that are never touched.
ADDRESS_SPACE = 1 << 30
LOOP = 5.0  # seconds of the processor after which a case is broken off
IMAGES = ("qcow2", "ext4")
QEMU_EACH = 10  # one case in this many is read by qemu-img, too

TURNS = (
    *("bitmap", "bitmap", "repair", "repair", "repair"),
    *("read", "read", "read", "disk", "disk", "disk", "stream", "stream"),
    *("check", "check", "snapshots", "info", "switch", "switch", "switch", *["commands"] * 8),
)


class Fuzzer:
    """The cases of one process, and what they gave. Those of qcow2; tests/fuzz/ext4/fuzzer.py has others."""

    suffix = ".qcow2"

    def __init__(self, directory: Path, findings: Path, *, qemu: bool) -> None:
        self.seeds = {path.name: path.read_bytes() for path in sorted((directory / "seeds").iterdir())}
        self.find_places()
        self.findings = findings
        self.qemu = qemu
        self.directory = directory
        self.outcomes: Counter[str] = Counter()
        self.found: dict[str, int] = {}
        self.slowest = 0.0
        self.largest = 0

    def find_places(self) -> None:
        """Look into the seeds, once."""
        self.places = {name: find_places(image) for name, image in self.seeds.items()}
        self.suitable = {target: [name for name in self.seeds if self._suits(name, target)] for target in TARGETS}
        # Few have a backing file, which commit and rebase need.
        self.suitable["commands"] += 2 * [name for name, image in self.seeds.items() if any(image[8:16])]

    def _suits(self, name: str, target: str) -> bool:
        """True when a seed has what the target looks for; what it has not is refused soon."""
        if target == "snapshots":
            return any(self.seeds[name][60:64])
        return name.startswith("stream") or target != "stream"

    def case(self, number: int) -> tuple[str, str, bytes]:
        """Return (seed's name, target, image) of a case."""
        rng = random.Random(number)
        target = rng.choice(TURNS)
        name = rng.choice(self.suitable[target])
        return name, target, mutate(self.seeds[name], self.places[name], rng)

    def outcome(self, target: str, image: bytes, number: int) -> str:
        """Put an image through a target and return its word. Raises what is a finding."""
        word = outcome(target, image, number)
        if self.qemu and target == "read" and word == "data" and number % QEMU_EACH == 0:
            word = compare_with_qemu(image, self.directory / f"qemu-{os.getpid()}")
        return word

    def run(self, number: int) -> None:
        """Try one case, and keep it when something is wrong."""
        name, target, image = self.case(number)
        problem = self.try_image(target, image, number)
        if problem is None:
            return
        key, text = problem
        self.found[key] = self.found.get(key, 0) + 1
        self.outcomes[f"{target}: FINDING"] += 1
        if self.found[key] == 1:
            self._keep(key, text, number, name, target, self._smaller(target, image, number, name, key))

    def try_image(self, target: str, image: bytes, number: int) -> tuple[str, str] | None:
        """Return (key, text) of what is wrong with the outcome, None when it is in order."""
        reset_peak()
        before, start = peak_memory(), time.process_time()
        signal.setitimer(signal.ITIMER_PROF, LOOP)
        try:
            word = self.outcome(target, image, number)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is a finding
            return _where(target, error), traceback.format_exc()
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        seconds, memory = time.process_time() - start, peak_memory() - before
        self.slowest, self.largest = max(self.slowest, seconds), max(self.largest, memory)
        if seconds > SECONDS:
            return f"{target} slow", f"{seconds:.1f} seconds of the processor"
        if memory > MEMORY:
            return f"{target} large", f"{memory >> 20} MiB"
        self.outcomes[f"{target}: {word}"] += 1
        return None

    def _smaller(self, target: str, image: bytes, number: int, name: str, key: str) -> bytes:
        """Undo every change that the finding does not need, by bisection."""
        seed = self.seeds[name]
        if len(seed) != len(image):
            return image
        deadline = time.monotonic() + 10
        current = bytearray(image)
        pieces = [(0, len(image))]
        while pieces and time.monotonic() < deadline:
            start, end = pieces.pop()
            if current[start:end] == seed[start:end]:
                continue
            tried = bytearray(current)
            tried[start:end] = seed[start:end]
            problem = self.try_image(target, bytes(tried), number)
            if problem is not None and problem[0] == key:
                current = tried
            elif end - start > 1:
                middle = (start + end) // 2
                pieces += [(start, middle), (middle, end)]
        return bytes(current)

    def _keep(self, key: str, text: str, number: int, name: str, target: str, image: bytes) -> None:
        stem = self.findings / f"{target}-{number}"
        stem.with_suffix(self.suffix).write_bytes(image)
        seed = self.seeds[name]
        different = [at for at in range(min(len(seed), len(image))) if seed[at] != image[at]]
        changes = [f"0x{at:x}: {seed[at]:02x} -> {image[at]:02x}" for at in different[:40]]
        sizes = f"{len(seed)} -> {len(image)} bytes, {len(different)} of them changed"
        stem.with_suffix(".txt").write_text(
            f"{key}\ncase {number}: seed {name}, target {target}\n{sizes}\n" + "\n".join(changes) + f"\n\n{text}\n"
        )


class LoopError(Exception):
    """A case takes so long that it may never end."""


def _break_off(number: int, frame: object) -> None:
    raise LoopError(f"no outcome after {LOOP:.0f} seconds of the processor")


def _where(target: str, error: Exception) -> str:
    """One word for all findings of one cause: the target, the error and the place."""
    if isinstance(error, LoopError):
        return f"{target} takes too long"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/tests/" not in frame.filename]
    frames = frames or list(traceback.extract_tb(error.__traceback__))
    text = "".join(character for character in str(error)[:60] if not character.isdigit())
    return f"{target} {type(error).__name__} {Path(frames[-1].filename).name}:{frames[-1].lineno} {text}"


def reset_peak() -> None:
    """Begin to measure the largest resident size anew; proc(5)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """The largest resident size in bytes since reset_peak()."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


def fuzzer_of(images: str) -> type[Fuzzer]:
    """Return the class whose cases are those of a kind of images."""
    if images == "ext4":
        from tests.fuzz.ext4.fuzzer import ExtFuzzer

        return ExtFuzzer
    return Fuzzer


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.worker")
    parser.add_argument("directory", type=Path)
    parser.add_argument("findings", type=Path)
    parser.add_argument("--images", choices=IMAGES, default="qcow2")
    parser.add_argument("--first", type=int, required=True)
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--no-qemu", action="store_true")
    arguments = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGPROF, _break_off)
    tempfile.tempdir = str(arguments.directory)  # which goes with the run
    fuzzer = fuzzer_of(arguments.images)(arguments.directory, arguments.findings, qemu=not arguments.no_qemu)
    current = os.open(arguments.directory / f"current-{os.getpid()}", os.O_RDWR | os.O_CREAT, 0o600)
    deadline, number, count = time.monotonic() + arguments.seconds, arguments.first, 0
    while time.monotonic() < deadline:
        os.pwrite(current, b"%020d" % number, 0)
        fuzzer.run(number)
        number += arguments.step
        count += 1
    json.dump(
        {
            "executions": count,
            "outcomes": fuzzer.outcomes,
            "findings": fuzzer.found,
            "slowest": fuzzer.slowest,
            "largest": fuzzer.largest,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
