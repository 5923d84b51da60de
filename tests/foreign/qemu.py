# SPDX-License-Identifier: MIT
"""QEMU's iotests that need no machine, once with qemu-img and once with pydiskimg in its place where it can be."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.foreign.outcomes import NOT_RUN, Outcome
from tests.foreign.qemu_calls import Run, Tally, compared

ROOT = Path(__file__).resolve().parent.parent.parent
FORMATS = ("qcow2", "raw")
QUIET_SECONDS = 900  # in which no call of qemu-img ends, of a test that hangs: a busy machine takes its time
_PROGRAMS = {
    "QEMU_PROG": "qemu-system-x86_64",
    "QEMU_IO_PROG": "qemu-io",
    "QEMU_NBD_PROG": "qemu-nbd",
    "QSD_PROG": "qemu-storage-daemon",
}
_STARTS_MORE = re.compile(
    rb"common\.qemu|\$QEMU\b|run_qemu|\$QSD\b|QEMU_PROG|\$QEMU_NBD|_require_nbd|(?<!_proto file )\bfuse\b"
    rb"|VM\(|QemuStorageDaemon|qemu_nbd|\.launch\(|qsd_prog"
)
_SUPPORTED = re.compile(rb"^_supported_fmt (.*)$", re.MULTILINE)


def candidates(source: Path) -> list[str]:
    """Return the names of the tests that start nothing but qemu-img and qemu-io, such as "001" and "tests/vvfat"."""
    iotests = source / "tests/qemu-iotests"
    files = [path for path in sorted([*iotests.glob("[0-9][0-9][0-9]"), *iotests.glob("tests/*")]) if path.is_file()]
    scripts = [path for path in files if os.access(path, os.X_OK) and path.read_bytes().startswith(b"#!")]
    return [str(path.relative_to(iotests)) for path in scripts if not starts_more(path.read_bytes())]


def starts_more(script: bytes) -> bool:
    """Whether a test starts a machine, a server or a daemon; a protocol that it supports starts none."""
    return bool(_STARTS_MORE.search(script))


def applies(script: Path, image_format: str) -> bool:
    """Whether a test is for a format, as far as its text tells; check says the rest."""
    listed = _SUPPORTED.search(script.read_bytes())
    return listed is None or not {"generic", image_format}.isdisjoint(listed[1].decode().split())


class Suite:
    """Runs tests of one source tree, with scratch directories below cache."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.iotests = source / "tests/qemu-iotests"
        self.cache = cache
        self.tally = Tally()

    @property
    def remark(self) -> str:
        """How many calls each program handled, for the summary."""
        tally = self.tally
        copies = f"{tally.copies} converted images are the same to qemu-img compare"
        return f"{tally.table()}\n{copies}; {tally.sentences} calls are equal but for their sentences on standard error"

    def outcomes(self, chosen: Callable[[str], bool], jobs: int) -> Iterator[Outcome]:
        tests = [
            (image_format, name)
            for image_format in FORMATS
            for name in candidates(self.iotests.parent.parent)
            if applies(self.iotests / name, image_format) and chosen(f"{image_format} {name}")
        ]
        with ThreadPoolExecutor(jobs) as pool:
            yield from pool.map(lambda test: self.outcome(*test), tests)

    def outcome(self, image_format: str, name: str) -> Outcome:
        test = f"{image_format} {name}"
        theirs = self._run(image_format, name, ours=False)
        if theirs.state != "pass":
            reason = {"skip": "does not apply", "hang": "takes too long with qemu-img"}
            return Outcome(test, NOT_RUN, reason.get(theirs.state, "fails with qemu-img here"))
        ours = self._run(image_format, name, ours=True)
        if ours.state == "skip":  # a busy machine is a reason to some, and passes
            ours = self._run(image_format, name, ours=True)
        self.tally.add(theirs, ours)
        if not any(call["ours"] for call in ours.calls):
            return Outcome(test, NOT_RUN, "no call that pydiskimg takes")
        return Outcome(test, *compared(theirs, ours))

    def _run(self, image_format: str, name: str, *, ours: bool) -> Run:
        scratch = self.cache / "scratch" / f"{image_format}-{name.replace('/', '-')}"
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(parents=True)
        log = scratch.with_suffix(".ours" if ours else ".real")
        log.unlink(missing_ok=True)
        with tempfile.TemporaryDirectory(prefix="iotest-") as short:  # a socket's name has 108 bytes at most
            environment = self._environment(scratch, log, Path(short), ours=ours)
            said = self._limited(["./check", "-tap", f"-{image_format}", Path(name).name], environment, log)
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        output = self._output(scratch, image_format, name)
        scratch.with_suffix(".out" if ours else ".expected").write_text(output)
        shutil.rmtree(scratch, ignore_errors=True)
        return Run(state(said, image_format, name), output, calls)

    def _output(self, scratch: Path, image_format: str, name: str) -> str:
        """What a test printed; where it passed, and nothing was kept, what it has to print."""
        expected = self.iotests / f"{name}.out"
        for path in (scratch / f"{Path(name).name}.out.bad", expected.with_suffix(f".out.{image_format}"), expected):
            if path.exists():
                return path.read_text(errors="replace")
        return ""

    def _environment(self, scratch: Path, log: Path, short: Path, *, ours: bool) -> dict[str, str]:
        stand_in = short / "qemu-img"
        python = f'"{sys.executable}" -P -m tests.foreign.qemu_img "$@"'
        stand_in.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT}" exec {python}\n')
        stand_in.chmod(0o755)
        programs = {variable: shutil.which(program) or program for variable, program in _PROGRAMS.items()}
        own = {"FOREIGN_LOG": str(log), "FOREIGN_OURS": str(int(ours)), "FOREIGN_ROOT": str(ROOT)}
        own["FOREIGN_THEIRS"] = str(log.with_suffix(".real"))
        own["FOREIGN_REAL"] = shutil.which("qemu-img") or "qemu-img"
        places = {"TEST_DIR": str(scratch), "SOCK_DIR": str(short / "s"), "QEMU_IMG_PROG": str(stand_in)}
        return {**os.environ, **programs, **own, **places, "MALLOC_PERTURB_": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def _limited(self, command: list[str], environment: dict[str, str], log: Path) -> str:
        """Return what command prints, or "hang" when log stood still and it was killed with everything it started."""
        with subprocess.Popen(
            command,
            cwd=self.iotests,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        ) as process:
            seen = -1
            while seen < (length := log.stat().st_size if log.exists() else 0):
                seen = length
                try:
                    return process.communicate(timeout=QUIET_SECONDS)[0]
                except subprocess.TimeoutExpired:
                    continue
            os.killpg(process.pid, signal.SIGKILL)
            return "hang"


def state(said: str, image_format: str, name: str) -> str:
    """Return pass, fail, skip or hang from what check -tap says."""
    if said == "hang":
        return said
    found = re.search(rf"^(not )?ok {image_format} {re.escape(Path(name).name)}( # SKIP)?$", said, re.MULTILINE)
    if not found or found[1]:
        return "fail"
    return "skip" if found[2] else "pass"
