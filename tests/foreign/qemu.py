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
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.foreign.outcomes import NOT_RUN, PASSED, WORDING, Outcome

ROOT = Path(__file__).resolve().parent.parent.parent
FORMATS = ("qcow2", "raw")
LIMIT_SECONDS = 600
_PROGRAMS = {
    "QEMU_PROG": "qemu-system-x86_64",
    "QEMU_IO_PROG": "qemu-io",
    "QEMU_NBD_PROG": "qemu-nbd",
    "QSD_PROG": "qemu-storage-daemon",
}
# A test with one of these starts a machine, a server or a daemon.
_STARTS_MORE = re.compile(
    rb"common\.qemu|\$QEMU\b|run_qemu|\$QSD\b|QEMU_PROG|\$QEMU_NBD|_require_nbd|fuse"
    rb"|VM\(|QemuStorageDaemon|qemu_nbd|\.launch\(|qsd_prog"
)
_SUPPORTED = re.compile(rb"^_supported_fmt (.*)$", re.MULTILINE)
_WRONG_PATTERN = "Pattern verification failed"  # qemu-io's words
# Lines that say the same in other words, or that only one of the two prints: what was made, what is in order, and why
# something is refused (the exit statuses are compared).
_OTHER_WORDS = re.compile(
    r"Formatting '.*|\S+: (?:raw|qcow2|IMGFMT), \d+ bytes.*|No errors were found.*|(?:qemu-img|pydiskimg|QEMU_IMG): .*"
)


@dataclass(frozen=True)
class Run:
    """One run of a test: pass, fail, skip or hang, what it printed when it failed, and its calls of qemu-img."""

    state: str
    output: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list)


def candidates(source: Path) -> list[str]:
    """Return the names of the tests that start nothing but qemu-img and qemu-io, such as "001" and "tests/vvfat"."""
    iotests = source / "tests/qemu-iotests"
    files = [path for path in sorted([*iotests.glob("[0-9][0-9][0-9]"), *iotests.glob("tests/*")]) if path.is_file()]
    scripts = [path for path in files if os.access(path, os.X_OK) and path.read_bytes().startswith(b"#!")]
    return [str(path.relative_to(iotests)) for path in scripts if not _STARTS_MORE.search(path.read_bytes())]


def applies(script: Path, image_format: str) -> bool:
    """Whether a test is for a format, as far as its text tells; check says the rest."""
    listed = _SUPPORTED.search(script.read_bytes())
    return listed is None or not {"generic", image_format}.isdisjoint(listed[1].decode().split())


class Suite:
    """Runs tests of one source tree, with scratch directories below cache."""

    def __init__(self, source: Path, cache: Path) -> None:
        self.iotests = source / "tests/qemu-iotests"
        self.cache = cache
        self.calls: Counter[str] = Counter()

    @property
    def remark(self) -> str:
        """Who did how much, for the summary."""
        count = self.calls
        split = f"calls: {count['ours']} by pydiskimg, {count['theirs']} by qemu-img"
        return f"{split}; {count['same']} converted images are the same to qemu-img compare"

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
        taken = sum(call["ours"] for call in ours.calls)
        same = sum(call.get("data") == "same" for call in ours.calls)
        self.calls.update(ours=taken, theirs=len(ours.calls) - taken, same=same)
        if not taken:
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
            said = self._limited(["./check", "-tap", f"-{image_format}", name], environment)
        calls = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
        output = self._output(scratch, image_format, name)
        scratch.with_suffix(".out").write_text(output)
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
        own["FOREIGN_REAL"] = shutil.which("qemu-img") or "qemu-img"
        places = {"TEST_DIR": str(scratch), "SOCK_DIR": str(short / "s"), "QEMU_IMG_PROG": str(stand_in)}
        return {**os.environ, **programs, **own, **places, "MALLOC_PERTURB_": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def _limited(self, command: list[str], environment: dict[str, str]) -> str:
        """Return what command prints, or "hang" when it was killed with everything that it started."""
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
            try:
                return process.communicate(timeout=LIMIT_SECONDS)[0]
            except subprocess.TimeoutExpired:
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


def compared(theirs: Run, ours: Run) -> tuple[str, str]:
    """Return in which way our run of a test that passes with qemu-img differs, the worst first, and a detail."""
    if ours.state == "hang":
        return "hang", f"more than {LIMIT_SECONDS} s"
    if ours.output.count(_WRONG_PATTERN) > theirs.output.count(_WRONG_PATTERN):
        return "wrong data", "qemu-io reads another pattern"
    if found := next(filter(None, map(_fault, ours.calls)), None) or _calls_that_differ(theirs, ours):
        return found
    if ours.state == "pass":
        return PASSED, ""
    detail = "ours is not run to its end" if ours.state == "skip" else ""
    return WORDING if _telling(ours.output) == _telling(theirs.output) else "text", detail


def _fault(call: dict[str, Any]) -> tuple[str, str] | None:
    """What is wrong with a call, whatever qemu-img did."""
    words = _shown(call)
    if "Traceback (most recent call last)" in call["error"]:
        return "traceback", f"{words}: {call['error'].strip().splitlines()[-1]}"
    if call.get("data", "").startswith("differs"):
        return "wrong data", f"{words}: {call['data']}"
    return None


def _calls_that_differ(theirs: Run, ours: Run) -> tuple[str, str] | None:
    """The calls with another exit status, or else those that made another image."""
    pairs = [(a, b) for a, b in zip(theirs.calls, ours.calls, strict=False) if a["words"] == b["words"] and b["ours"]]
    statuses = [f"{_shown(b)}: {_difference(a, b, 'status')}" for a, b in pairs if not _same_end(a, b)]
    if statuses:
        return "status", "; ".join(statuses)
    images = [f"{_shown(b)}: {_difference(a, b, 'made')}" for a, b in pairs if a.get("made") != b.get("made")]
    return ("image", "; ".join(images)) if images else None


def _same_end(theirs: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether both calls ended alike. Wrong usage is 1 to qemu-img and 2 to us, but where 2 means something else."""
    one, other = theirs["status"], ours["status"]
    return one == other or ((one, other) == (1, 2) and ours["words"][0] not in ("compare", "check"))


def _shown(call: dict[str, Any]) -> str:
    return re.sub(r"\S*/", "", " ".join(call["words"]))


def _telling(output: str) -> list[str]:
    """The lines of output whose words matter."""
    lines = (line.rstrip() for line in output.splitlines())
    return [line for line in lines if not _OTHER_WORDS.fullmatch(line)]


def _difference(theirs: dict[str, Any], ours: dict[str, Any], key: str) -> str:
    a, b = theirs.get(key), ours.get(key)
    if isinstance(a, dict) and isinstance(b, dict):
        a, b = ({name: one.get(name) for name in {*a, *b} if a.get(name) != b.get(name)} for one in (a, b))
    return f"expected {a}, got {b}; {ours['error'].strip()[-200:]}"
