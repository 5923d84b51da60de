# SPDX-License-Identifier: MIT
"""The Python examples of README.md and docs/qcow2.md run, in their order, on images of the names that they use."""

from __future__ import annotations

import json
import os
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.checkout import ROOT
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

MIB = 1 << 20


def examples(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the images that the examples begin with; /srv and /dev/vg0 are in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("srv/images", "dev/vg0", "tree/etc", "tree/var/log", "tree/home"):
        Path(name).mkdir(parents=True)
    for name, size in (("debian-12", "2G"), ("machine", "64M"), ("template", "8M"), ("srv/images/other", "8M")):
        run("qemu-img", "create", "-q", "-f", "qcow2", f"{name}.qcow2", size)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 300k", f"{name}.qcow2")
    run("qemu-img", "snapshot", "-c", "before-upgrade", "machine.qcow2")
    for name in ("overlay", "top"):
        path = f"srv/images/{name}.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "other.qcow2", "-F", "qcow2", path)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 5 2M 64k", path)
    for name, mib in (("disk.raw", 64), ("dev/vg0/disk0", 16), ("dev/vg0/disk1", 32), ("dev/vg0/inst1-disk0", 2048)):
        Path(name).write_bytes(b"x" * MIB)
        os.truncate(name, mib * MIB)
    Path("stream").touch()
    return tmp_path


def run_examples(texts: list[str], directory: Path, **names: Any) -> dict[str, Any]:
    """Run them as one program, with the directory's own files in place of those of the machine."""
    ours = {place: f"{directory}{place}" for place in ("/srv/images", "/dev/vg0")}
    ours |= {"write_stream(source, 1,": "write_stream(source, write_end,", "read_stream(0,": "read_stream(read_end,"}
    for text in texts:
        changed = re.sub("|".join(map(re.escape, ours)), lambda found: ours[found[0]], text)
        exec(compile(changed, "example", "exec"), names)
    return names


def test_qcow2(directory: Path) -> None:
    texts = examples("docs/qcow2.md")
    assert len(texts) >= 14
    with open("stream", "wb") as write_end, open("stream", "rb") as read_end:
        run_examples(texts, directory, write_end=write_end.fileno(), read_end=read_end.fileno())
    for name in ("machine", "template", "srv/images/top", "srv/images/other", "disk", "empty", "clone"):
        run("qemu-img", "check", "-q", "-f", "qcow2", f"{name}.qcow2")
    moved = json.loads(run("qemu-img", "info", "--output=json", "moved.qcow2"))["format-specific"]["data"]["bitmaps"]
    assert [(bitmap["name"], bitmap["flags"]) for bitmap in moved] == [("since-monday", ["auto"]), ("since-sunday", [])]
    assert Path("dev/vg0/disk1").read_bytes()[: MIB + 1] == b"x" * MIB + b"\0"
    assert "backing file: " not in run("qemu-img", "info", "srv/images/top.qcow2")
    assert run("qemu-img", "compare", "debian-12.qcow2", "clone.qcow2") == "Images are identical.\n"
    run("qemu-img", "compare", "machine.qcow2", "small.qcow2")
    run("qemu-img", "compare", "-F", "raw", "template.qcow2", "salvaged.raw")
    assert Path("salvaged.raw").stat().st_blocks * 512 >= Path("salvaged.raw").stat().st_size
    run("qemu-img", "dd", "if=machine.qcow2", "of=expected.raw", "bs=1M", "skip=1", "count=2")
    assert Path("part.raw").read_bytes() == Path("expected.raw").read_bytes()
    run("qemu-img", "check", "-q", "small.qcow2")
    run("qemu-img", "convert", "template.qcow2", "empty.qcow2", "expected.raw")
    run("qemu-img", "compare", "joined.qcow2", "expected.raw")


def test_readme(directory: Path) -> None:
    for name in ("etc/hostname", "etc/shadow", "var/log/syslog"):
        Path("tree", name).write_text("old\n")
    with tarfile.open("debian-12.tar.gz", "w:gz") as tar:
        tar.add("tree", ".")
    assert main(["mkfs", "--create", "64M", "root.raw"]) == 0
    assert main(["tar-in", "root.raw", "debian-12.tar.gz", "/"]) == 0
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", "root.raw", "disk.qcow2")
    copied, tree, partitioned, populated, _ = examples("README.md")  # the last needs a whole Debian: docs/build.md
    run_examples([copied, tree, partitioned, populated], directory)
    assert Path("dev/vg0/inst1-disk0").read_bytes()[MIB : MIB + 4] == b"\7" * 4
    run("qemu-img", "check", "-q", "root.qcow2")
    run("qemu-img", "convert", "-O", "raw", "disk.qcow2", "changed.raw")
    assert main(["cat", "changed.raw", "/etc/hostname"]) == 0
