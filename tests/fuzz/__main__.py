# SPDX-License-Identifier: MIT
"""python -m tests.fuzz --minutes 30 --seed 1 --jobs 2: see README.md."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tests.fuzz import seeds
from tests.fuzz.ext4 import seeds as ext_seeds
from tests.fuzz.hanging import Watch, processor_seconds
from tests.fuzz.worker import IMAGES, fuzzer_of

ROOT = Path(__file__).resolve().parent.parent.parent
LOOK = 2.0  # seconds between two looks at a process
SPAN = 1 << 32  # cases of one --seed
PIECE = 60.0  # seconds that a process works before its numbers are looked at


class Run:
    """All processes of one run, and the sum of what they found."""

    def __init__(self, arguments: argparse.Namespace, directory: Path) -> None:
        self.directory = directory
        self.code = directory / "code"
        self.findings: Path = arguments.findings.absolute()
        self.jobs: int = arguments.jobs
        self.images: str = arguments.images
        self.qemu: bool = not arguments.no_qemu
        self.next_case = arguments.seed * SPAN
        self.executions = 0
        self.outcomes: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.slowest, self.largest = 0.0, 0

    def run(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0.5:
            first, self.next_case = self.next_case, self.next_case + SPAN // 4096
            workers = [self._start(first + job, min(left, PIECE)) for job in range(self.jobs)]
            for worker in workers:
                self._wait(worker)
            line = f"{self.executions} executions, {len(self.found)} findings, slowest {self.slowest:.2f} s, "
            sys.stderr.write(f"{line}largest {self.largest >> 20} MiB\n")

    def _start(self, first: int, seconds: float) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "tests.fuzz.worker", str(self.directory), str(self.findings)]
        command += ["--first", str(first), "--step", str(self.jobs), "--seconds", str(seconds), "--images", self.images]
        if not self.qemu:
            command.append("--no-qemu")
        return subprocess.Popen(command, cwd=self.code, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def _wait(self, worker: subprocess.Popen[str]) -> None:
        """Wait for a process, and kill it when it stays at one case for too long."""
        current = self.directory / f"current-{worker.pid}"
        watch = Watch()
        while True:
            try:
                output, errors = worker.communicate(timeout=LOOK)
                break
            except subprocess.TimeoutExpired:
                case = current.read_text() if current.exists() else ""
                if not watch.hangs(case, processor_seconds(worker.pid), time.monotonic()):
                    continue
                worker.kill()
                worker.communicate()
                self._lost("hangs", current, "")
                return
        if worker.returncode:
            self._lost(f"dies with status {worker.returncode}", current, errors)
            return
        self._add(json.loads(output))

    def _add(self, result: dict[str, Any]) -> None:
        self.executions += result["executions"]
        self.outcomes.update(result["outcomes"])
        self.found.update(result["findings"])
        self.slowest = max(self.slowest, result["slowest"])
        self.largest = max(self.largest, result["largest"])

    def _lost(self, what: str, current: Path, errors: str) -> None:
        if not current.exists():
            raise RuntimeError(f"a process of the fuzzer {what} before its first case: {errors}")
        case = current.read_text()
        self.found[what] += 1
        (self.findings / f"lost-{case}.txt").write_text(f"case {case}: the process {what}\n{errors}\n")

    def summary(self) -> str:
        lines = [f"executions  {self.executions}", f"slowest     {self.slowest:.2f} s of the processor"]
        lines += [f"largest     {self.largest >> 20} MiB more than before", "", "outcomes"]
        lines += [f"{count:>10}  {word}" for word, count in sorted(self.outcomes.items())]
        lines += ["", f"findings    {len(self.found)} (in {self.findings}/)"]
        lines += [f"{count:>10}  {key}" for key, count in self.found.most_common()]
        return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz all that takes a qcow2 or an ext.")
    parser.add_argument("--images", choices=IMAGES, default="qcow2", help="what is changed")
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1, help="another number gives other cases")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--no-qemu", action="store_true", help="do not compare with qemu-img")
    parser.add_argument("--findings", type=Path, default=Path(".fuzz"), help="directory for what is found")
    parser.add_argument("--case", type=int, help="try one case and show what it gives")
    parser.add_argument("--file", nargs=2, metavar=("TARGET", "FILE"), help="put one file through one target")
    arguments = parser.parse_args()
    if arguments.file:
        from tests.fuzz import targets
        from tests.fuzz.ext4 import targets as ext_targets

        outcome = (ext_targets if arguments.images == "ext4" else targets).outcome
        case = int("0" + "".join(filter(str.isdigit, Path(arguments.file[1]).stem)))
        sys.stdout.write(f"{outcome(arguments.file[0], Path(arguments.file[1]).read_bytes(), case)}\n")
        return 0
    arguments.findings.mkdir(exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="pydiskimg-fuzz-", dir="/dev/shm"))
    try:
        (directory / "seeds").mkdir()
        (directory / "made").mkdir()
        make_seeds = ext_seeds.make_seeds if arguments.images == "ext4" else seeds.make_seeds
        for name, image in make_seeds(directory / "made").items():
            (directory / "seeds" / name).write_bytes(image)
        for package in ("pydiskimg", "tests"):  # what is edited meanwhile does not change this run
            shutil.copytree(ROOT / package, directory / "code" / package)
        run = Run(arguments, directory)
        if arguments.case is not None:
            fuzzer = fuzzer_of(run.images)(directory, arguments.findings, qemu=run.qemu)
            name, target, image = fuzzer.case(arguments.case)
            problem = fuzzer.try_image(target, image, arguments.case)
            sys.stdout.write(f"{name} {target} {problem or dict(fuzzer.outcomes)}\n")
            return 0
        run.run(arguments.minutes * 60)
    finally:
        shutil.rmtree(directory)
    sys.stdout.write(f"{run.summary()}\n")
    return 1 if run.found else 0


if __name__ == "__main__":
    sys.exit(main())
