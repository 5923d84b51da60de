# SPDX-License-Identifier: MIT
"""Every subcommand that reads or changes a qcow2 image, on a possibly invalid one, on the command line.

Whatever the image says, a command ends with one of its exit statuses and printable lines. A command that only reads
leaves the image as it is; one that changes it leaves an image in order in order, and showing what it has to.
"""

from __future__ import annotations

import io
import json
import os
import random
import tempfile
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from pydiskimg.cli import main
from pydiskimg.errors import DiskImageError
from pydiskimg.extents import Kind
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.raw import open_raw
from pydiskimg.images.references import allow_references
from pydiskimg.protocols import read_bytes

SMALL = 8 << 20  # a virtual disk that may be read as a whole
COPIED = 128 << 20  # bytes of data that may be copied: half a second of the processor, one where they are compressed
UNIT = 64 << 10  # in which they are counted
LONGEST = 1000  # characters of a line on standard error, which names the path of the directory several times
HARMLESS = ("is leaked", "the copied flag is not set")
STATUSES = {"check": {0, 1, 2, 3, 63}, "compare": {0, 1, 2, 3, 4}}

BASE = random.Random(1).randbytes(1 << 16) * 24
"""What base.raw and data.raw have in them."""


class Case:
    """One image in a directory of its own, and the files that it may name."""

    def __init__(self, directory: str, image: bytes, rng: random.Random) -> None:
        self.directory = directory
        self.path = os.path.join(directory, "test.qcow2")
        self.other = os.path.join(directory, "other")
        self.rng = rng
        for name, data in (("test.qcow2", image), ("base.raw", BASE), ("data.raw", BASE)):
            Path(directory, name).write_bytes(data)

    def run(self, command: str, *words: str) -> tuple[int, str]:
        """Run a subcommand; returns its exit status and output."""
        out, err = io.StringIO(), io.StringIO()
        open_before = len(os.listdir("/proc/self/fd"))
        try:
            with redirect_stdout(out), redirect_stderr(err):
                status = main([command, *words])
        except SystemExit as ended:
            raise AssertionError(f"{command}: wrong usage: {err.getvalue()}") from ended
        assert len(os.listdir("/proc/self/fd")) == open_before, f"{command}: left a descriptor open"
        assert status in STATUSES.get(command, {0, 1}), f"{command}: exit status {status}"
        for line in err.getvalue().split("\n"):
            assert line.isprintable(), f"{command}: says {line!r}"
            assert len(line) < LONGEST, f"{command}: says {len(line)} characters: {line}"
        assert out.getvalue().replace("\n", "").replace("\r", "").isprintable(), f"{command}: prints {out.getvalue()!r}"
        return status, out.getvalue()

    def references(self) -> tuple[str, str]:
        """The option that allows what the image may name."""
        return "--allow-references", self.directory

    def shown(self, path: str, format_name: str = "qcow2") -> bytes | None:
        """What an image shows; None where it cannot be read or is large."""
        try:
            with allow_references(self.directory) as allowed:
                opened = open_image(path, format=format_name, references=allowed)
            with opened as source:
                return read_bytes(source, 0, source.size) if source.size <= SMALL else None
        except DiskImageError:
            return None

    def harm(self) -> list[str]:
        """What check finds in the image, but for what is harmless."""
        try:
            with open_raw(self.path) as file:
                details = check_qcow2(file).details
        except DiskImageError as error:
            return [str(error)]
        return [detail for detail in details if not any(words in detail for words in HARMLESS)]

    def copied(self) -> int:
        """How many bytes of data the image shows, small holes between them included, which a copy takes."""
        try:
            with allow_references(self.directory) as allowed:
                opened = open_image(self.path, format="qcow2", references=allowed)
            with opened as source:
                extents = source.coarse_extents(UNIT)
                return sum(extent.length for extent in extents if extent.kind is Kind.DATA)
        except DiskImageError:
            return 0


def describe(case: Case, before: bytes | None) -> str:
    """info, snapshot -l and map, in every form."""
    rng = case.rng
    form = rng.choice(([], ["--output=json"]))
    words = rng.choice((["info"], ["info", "--backing-chain", *case.references()], ["snapshot", "-l"], ["map"]))
    if words[0] == "map":
        words += case.references()
        words += rng.choice(([], ["-s", str(rng.randrange(1 << 20)), "-l", str(rng.randrange(1 << 40))]))
    status, out = case.run(*words, *form, *rng.choice(([], ["-f", "qcow2"], ["-f", "raw"])), case.path)
    if form and not status:
        json.loads(out)
    return _word(status)


def check(case: Case, before: bytes | None) -> str:
    """Check, whose exit statuses all have a meaning; 63 for what is not a qcow2 any more."""
    return str(case.run("check", *case.rng.choice(([], ["-q"], ["--output=json"])), case.path)[0])


def convert(case: Case, before: bytes | None) -> str:
    """A copy holds the same, is in order, and is not larger than measure says; compare finds both identical."""
    rng, allowed = case.rng, case.references()
    kind = rng.choice(("raw", "qcow2"))
    options = rng.choice(([], ["-c"], ["-o", "cluster_size=4k"], ["-o", "compat=0.10"])) if kind == "qcow2" else []
    if case.copied() > COPIED:
        return "too large"
    form = [word for word in options if word != "-c"]
    measured, said = case.run("measure", *allowed, "--output=json", "-O", kind, *form, case.path)
    status, _ = case.run("convert", *allowed, "-O", kind, *options, case.path, case.other)
    if status:
        assert not os.path.exists(case.other), "a copy that failed is there"
        return "refused"
    if not measured and "-c" not in options:
        required = json.loads(said)["required"]
        assert os.path.getsize(case.other) <= required, f"the copy is larger than the {required} bytes measured"
    if before is not None:
        copy = case.shown(case.other, kind)
        assert copy is not None, "the copy cannot be read"
        assert copy[: len(before)] == before, "the copy has other bytes"
    assert case.run("compare", *allowed, "-F", kind, case.path, case.other)[0] == 0, "the copy is not identical"
    if kind == "qcow2":
        assert case.run("check", "-q", case.other)[0] == 0, "the copy is not in order"
    return "copied"


def compare(case: Case, before: bytes | None) -> str:
    """Compare, with the backing file or with itself."""
    if case.copied() > COPIED:
        return "too large"
    other, kind = case.rng.choice(((case.path, "qcow2"), (os.path.join(case.directory, "base.raw"), "raw")))
    strict = case.rng.choice(([], ["-s"]))
    status, _ = case.run("compare", *case.references(), *strict, "-f", "qcow2", "-F", kind, case.path, other)
    assert other != case.path or status != 1, "an image differs from itself"
    return str(status)


def create(case: Case, before: bytes | None) -> str:
    """A new image on top of this one shows the same."""
    status, _ = case.run("create", "-f", "qcow2", "-b", "test.qcow2", "-F", "qcow2", case.other)
    if not status and before is not None:
        assert case.shown(case.other) == before.ljust(-(-len(before) // 512) * 512, b"\0"), "the overlay shows another"
    return _word(status)


def snapshot(case: Case, before: bytes | None) -> str:
    """A snapshot taken or deleted changes nothing that is shown."""
    verb, name = case.rng.choice(
        (("-c", "new"), ("-d", "first"), ("-d", "second one"), ("-a", "1"), ("-a", "second one"))
    )
    status, _ = case.run("snapshot", verb, name, case.path)
    if verb != "-a" or status:
        _assert_shows(case, before, f"snapshot {verb}")
    return _word(status)


def resize(case: Case, before: bytes | None) -> str:
    """Made larger, it shows zeros there; made smaller, what is left of it."""
    rng = case.rng
    words = [rng.choice(("+1M", "+512", "+64k", "-512", "-64k", "0", "1M", "+1T"))]
    if words[0] in ("+1M", "+512", "+64k"):
        words = ["--preallocation", rng.choice(("off", "metadata", "falloc", "full")), "--", *words]
    status, _ = case.run("resize", *case.references(), "-f", "qcow2", "--shrink", case.path, *words)
    if status:
        _assert_shows(case, before, "a resize that failed")
    elif before is not None and (after := case.shown(case.path)) is not None:
        shorter = min(len(before), len(after))
        assert after[:shorter] == before[:shorter], "resize: the disk shows something else"
        assert not any(after[shorter:]), "resize: what is new is not zero"
    return _word(status)


def amend(case: Case, before: bytes | None) -> str:
    """Options of the image are changed, and not what it shows."""
    options = case.rng.choice(AMENDMENTS)
    status, _ = case.run("amend", *case.references(), "-o", options, case.path)
    _assert_shows(case, before, f"amend -o {options}")
    return _word(status)


def commit(case: Case, before: bytes | None) -> str:
    """The image shows the same afterwards, whether or not it has been emptied."""
    if case.copied() > COPIED:
        return "too large"
    options = case.rng.choice(([], ["-d"], ["-b", os.path.join(case.directory, "base.raw")]))
    status, _ = case.run("commit", *case.references(), *options, case.path)
    _assert_shows(case, before, "commit")
    return _word(status)


def rebase(case: Case, before: bytes | None) -> str:
    """The image shows the same on another backing file, or on none; with -u it need not."""
    if case.copied() > COPIED:
        return "too large"
    Path(case.other).write_bytes(BASE[::-1])
    backing = case.rng.choice((["-b", ""], ["-b", "other", "-F", "raw"]))
    unsafe = case.rng.choice(([], [], ["-u"]))
    status, _ = case.run("rebase", *case.references(), *unsafe, *backing, case.path)
    if not unsafe or status:
        _assert_shows(case, before, "rebase")
    return _word(status)


def overwrite(case: Case, before: bytes | None) -> str:
    """convert -n into the image: it shows what was copied, and as before after that."""
    data = case.rng.randbytes(512) * case.rng.choice((1, 40, 700))
    Path(case.other).write_bytes(data)
    words = (*case.references(), "-n", "-f", "raw", "-O", "qcow2", case.other, case.path)
    status, _ = case.run("convert", *words)
    if before is not None and not status:
        assert case.shown(case.path) == data + before[len(data) :], "convert -n: the disk shows something else"
    return _word(status)


def dd(case: Case, before: bytes | None) -> str:
    """A part of the image in a raw file."""
    if case.copied() > COPIED:
        return "too large"
    skip, count = case.rng.randrange(20), case.rng.randrange(1, 200)
    words = ["-O", "raw", "bs=4k", f"skip={skip}", f"count={count}", f"if={case.path}", f"of={case.other}"]
    status, _ = case.run("dd", *case.references(), "-f", "qcow2", *words)
    if before is not None and not status:
        part = before[skip * 4096 : min(count * 4096, len(before))]  # count includes what is skipped, as in qemu-img
        assert Path(case.other).read_bytes() == part.ljust(-(-len(part) // 512) * 512, b"\0"), "dd: other bytes"
    return _word(status)


def bitmap(case: Case, before: bytes | None) -> str:
    """Bitmaps are changed; the disk is not."""
    choice = (["--add"], ["--add", "-g", "512"], ["--remove"], ["--clear", "--enable"], ["--add", "--merge", "b0"])
    status, _ = case.run("bitmap", *case.rng.choice(choice), case.path, case.rng.choice(("b0", "b0", "new")))
    _assert_shows(case, before, "bitmap")
    return _word(status)


def repair(case: Case, before: bytes | None) -> str:
    """What is repaired shows what it did, and a second repair finds nothing."""
    how = case.rng.choice(("all", "all", "leaks"))
    status, _ = case.run("check", "-r", how, case.path)
    _assert_shows(case, before, "check -r")
    if not status:
        assert case.run("check", case.path)[0] == 0, "check -r: not clean afterwards"
    return str(status)


def _assert_shows(case: Case, before: bytes | None, what: str) -> None:
    if before is not None:
        assert case.shown(case.path) == before, f"{what}: the disk shows something else"


def _word(status: int) -> str:
    return "refused" if status else "done"


AMENDMENTS = ("compat=0.10", "compat=1.1", "refcount_bits=64", "refcount_bits=1", "lazy_refcounts=on", "data_file=x")
Action = Callable[[Case, bytes | None], str]
READING: Mapping[str, Action] = {
    "describe": describe,
    "check": check,
    "convert": convert,
    "compare": compare,
    "create": create,
    "dd": dd,
}
CHANGING: Mapping[str, Action] = {
    "bitmap": bitmap,
    "repair": repair,
    "amend": amend,
    "snapshot": snapshot,
    "resize": resize,
    "commit": commit,
    "rebase": rebase,
    "overwrite": overwrite,
}


def commands(image: bytes, rng: random.Random) -> str:
    """Run one subcommand on the image, and see what it did to it; returns its name and a word."""
    with tempfile.TemporaryDirectory() as directory:
        case = Case(directory, image, rng)
        has_backing = any(image[8:16])
        name = rng.choice((*READING, *CHANGING, *(("commit", "commit", "rebase") if has_backing else CHANGING)))
        if name in READING:
            word = READING[name](case, case.shown(case.path))
            assert Path(case.path).read_bytes() == image, f"{name}: the image was changed"
        else:
            in_order = not case.harm()
            word = CHANGING[name](case, case.shown(case.path) if in_order else None)
            assert not in_order or not (harm := case.harm()), f"{name}: the image was corrupted: {harm[:1]}"
    return f"{name}: {word}"
