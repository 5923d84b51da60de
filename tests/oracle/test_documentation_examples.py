# SPDX-License-Identifier: MIT
"""The examples of README.md and docs/ run, in their order, on images of the names that they use.

Blocks of Python run here; blocks of sh run in a shell that has the command pydiskimg.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pydiskimg import MemoryDisk, Region, make_ext, new_image
from pydiskimg.cli import main
from tests.fixtures.checkout import ROOT
from tests.fixtures.example_files import make_example_files
from tests.fixtures.image_server import image_server
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
# Where the examples have directories of a machine, these are in the current directory.
_ABSOLUTE = ("/srv/images", "/dev/vg0", "/dev/sdX")


def blocks(document: str, language: str = "python") -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", (ROOT / document).read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the images that the examples begin with; /srv and /dev/vg0 are in it."""
    monkeypatch.chdir(tmp_path)
    for name in ("srv/images", "dev/vg0", "tree/etc", "tree/var/log", "tree/home"):
        Path(name).mkdir(parents=True)
    for name, size in (("debian-12", "2G"), ("machine", "64M"), ("template", "8M"), ("srv/images/other", "8M")):
        run("qemu-img", "create", "-q", "-f", "qcow2", f"{name}.qcow2", size)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 1M 300k", f"{name}.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 8 2M 300k", "machine.qcow2")
    run("qemu-img", "snapshot", "-c", "before-upgrade", "machine.qcow2")
    for name in ("overlay", "top"):
        path = f"srv/images/{name}.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "other.qcow2", "-F", "qcow2", path)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 5 2M 64k", path)
    for name, mib in (("disk.raw", 64), ("dev/vg0/disk0", 16), ("dev/vg0/disk1", 32), ("dev/vg0/inst1-disk0", 2048)):
        sparse_file(Path(name), mib)
    Path("stream").touch()
    return tmp_path


@pytest.fixture
def system(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with a small Debian as disk.qcow2, disk.raw and debian.tar.gz."""
    monkeypatch.chdir(tmp_path)
    make_example_files(tmp_path, tmp_path_factory.mktemp("scratch"))
    return tmp_path


def sparse_file(path: Path, mib: int) -> None:
    path.write_bytes(b"x" * MIB)
    os.truncate(path, mib * MIB)


def run_python(texts: list[str], directory: Path, **names: Any) -> dict[str, Any]:
    """Run them as one program, with the directory's own files in place of those of the machine."""
    ours = {path: f"{directory}{path}" for path in _ABSOLUTE}
    ours |= {"write_stream(source, 1,": "write_stream(source, write_end,", "read_stream(0,": "read_stream(read_end,"}
    for text in texts:
        changed = re.sub("|".join(map(re.escape, ours)), lambda found: ours[found[0]], text)
        exec(compile(changed, "example", "exec"), names)
    return names


def run_shell(texts: list[str], directory: Path, replaced: dict[str, str]) -> None:
    """Run them as one script, in which a failing command ends it."""
    ours = replaced | {path: f"{directory}{path}" for path in _ABSOLUTE}
    script = "\n".join(texts)
    for text, other in ours.items():
        script = script.replace(text, other)
    programs = directory / "programs"
    programs.mkdir()
    for name, line in (("pydiskimg", f'exec {sys.executable} -m pydiskimg "$@"'), ("ssh", 'shift; exec sh -c "$*"')):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": f"{programs}:{os.environ['PATH']}"}
    command = ["bash", "-euxo", "pipefail", "-c", script]
    done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_qcow2(directory: Path) -> None:
    texts = blocks("docs/qcow2.md")
    assert len(texts) >= 14
    with open("stream", "wb") as write_end, open("stream", "rb") as read_end:
        run_python(texts, directory, write_end=write_end.fileno(), read_end=read_end.fileno())
    for name in ("machine", "template", "srv/images/top", "srv/images/other", "disk", "empty", "clone"):
        run("qemu-img", "check", "-q", "-f", "qcow2", f"{name}.qcow2")
    moved = json.loads(run("qemu-img", "info", "--output=json", "moved.qcow2"))["format-specific"]["data"]["bitmaps"]
    assert [(bitmap["name"], bitmap["flags"]) for bitmap in moved] == [("since-monday", ["auto"]), ("since-sunday", [])]
    assert Path("dev/vg0/disk1").read_bytes()[: MIB + 1] == b"x" * MIB + b"\0"
    assert "backing file: " not in run("qemu-img", "info", "srv/images/top.qcow2")
    assert run("qemu-img", "compare", "debian-12.qcow2", "clone.qcow2") == "Images are identical.\n"
    run("qemu-img", "compare", "-F", "qcow2", "machine.qcow2", "small.qcow2")
    run("qemu-img", "compare", "-F", "raw", "template.qcow2", "salvaged.raw")
    assert Path("salvaged.raw").stat().st_blocks * 512 >= Path("salvaged.raw").stat().st_size
    run("qemu-img", "dd", "if=machine.qcow2", "of=expected.raw", "bs=1M", "skip=1", "count=2")
    assert Path("part.raw").read_bytes() == Path("expected.raw").read_bytes()
    run("qemu-img", "check", "-q", "small.qcow2")
    run("qemu-img", "convert", "template.qcow2", "empty.qcow2", "expected.raw")
    run("qemu-img", "compare", "joined.qcow2", "expected.raw")


@pytest.mark.parametrize("page", ["README.md", "docs/library.md"])
def test_the_library(page: str, system: Path) -> None:
    shutil.copy("debian.tar.gz", "debian-12.tar.gz")
    shutil.copy("disk.qcow2", "debian-12.qcow2")
    Path("dev/vg0").mkdir(parents=True)
    for name, mib in (("dev/vg0/inst1-disk0", 80), ("small.raw", 1)):
        sparse_file(Path(name), mib)
    assert main(["mkdir", "-p", "disk.qcow2", "/home", "/var/log"]) == 0
    assert main(["copy-in", "disk.qcow2", "files.tar.gz", "/var/log"]) == 0
    Path("shadow").write_text("root:*::\n")
    assert main(["copy-in", "disk.qcow2", "shadow", "/etc"]) == 0
    texts = blocks(page)
    assert len(texts) >= 2
    run_python(texts, system)
    assert main(["compare", "dev/vg0/inst1-disk0", "debian-12.qcow2"]) == 0
    run("qemu-img", "check", "-q", "disk.qcow2")
    for image in ("root.qcow2", "web1.qcow2") if page == "docs/library.md" else ():
        run("qemu-img", "check", "-q", image)


def test_ext4(system: Path) -> None:
    for name in ("usr/bin", "var/spool/many", "var/lib", "var/cache/apt", "var/www", "srv"):
        Path("tree", name).mkdir(parents=True)
    Path("tree/bin").symlink_to("usr/bin")
    Path("tree/var/www").rmdir()
    for name in ("usr/bin/ping", "var/lib/large", "etc/shadow", "etc/motd", "etc/os-release"):
        Path("tree", name).parent.mkdir(exist_ok=True)
        Path("tree", name).write_text("contents\n")
    with tarfile.open("more.tar", "w") as archive:
        archive.add("tree", ".")
    assert main(["tar-in", "disk.qcow2", "more.tar", "/"]) == 0
    shutil.copy("files.tar.gz", "site.tar.gz")
    reading, changing, filling, shrinking = blocks("docs/ext4.md")
    with tarfile.open("debian.tar.gz", "w:gz") as archive:
        archive.add("tree", ".")
    with new_image("disk.raw", 21 << 30) as disk:
        make_ext(Region(disk, 1 << 20, 20 << 30))
    names = {"root": MemoryDisk(32 * MIB), "boot": MemoryDisk(32 * MIB)}
    run_python([reading, changing, filling, shrinking], system, **names)
    run("qemu-img", "check", "-q", "disk.qcow2")


def test_build(system: Path) -> None:
    device, packages = "/dev/vg0/web1", "mmdebstrap --include=linux-image-amd64,systemd-sysv,grub-pc-bin bookworm -"
    replaced = {device: "web1.raw --size 2G", packages: "zcat debian.tar.gz"}
    run_shell(blocks("docs/build.md", "sh"), system, replaced)
    for image, root in (("debian.raw", "1"), ("web1.raw", "3"), ("debian.qcow2", "2")):
        assert main(["cat", "--partition", root, image, "/etc/hosts"]) == 0
    run_python(blocks("docs/build.md"), system)
    run("qemu-img", "check", "-q", "debian.qcow2")


def test_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_shell(blocks("docs/start.md", "sh"), tmp_path, {})
    run_python(blocks("docs/start.md"), tmp_path)
    assert main(["cat", "data.qcow2", "/greeting"]) == 0


def test_the_command_line(system: Path) -> None:
    shutil.copy("disk.qcow2", "debian-12.qcow2")
    for name in ("machine.qcow2", "other.qcow2"):
        assert main(["convert", "-O", "qcow2", "disk.qcow2", name]) == 0
    Path("dev/vg0").mkdir(parents=True)
    for name in ("dev/vg0/inst1-disk0", "dev/sdX"):
        sparse_file(Path(name), 64)
    Path("icons").mkdir()
    for name in ("index.html", "icons/logo.svg", "os-release", "shadow", "syslog"):
        Path(name).write_text("contents\n")
    assert main(["copy-in", "disk.qcow2", "os-release", "shadow", "/etc"]) == 0
    assert main(["mkdir", "-p", "disk.qcow2", "/var/log"]) == 0
    assert main(["copy-in", "disk.qcow2", "syslog", "/var/log"]) == 0
    run("xz", "--keep", "-0", "-T1", "disk.raw")
    os.rename("disk.raw.xz", "image.raw.xz")
    run("sh", "-c", "zcat files.tar.gz | zstd -q > site.tar.zst")
    with image_server() as images:
        images.put("debian-12.qcow2", Path("debian-12.qcow2").read_bytes())
        run_shell(blocks("docs/command-line.md", "sh"), system, {"https://example.org": images.url})
    run("qemu-img", "check", "-q", "disk.qcow2")
    assert main(["compare", "dev/sdX", "disk.raw"]) == 0
    assert main(["cat", "disk.qcow2", "/srv/www/icons/logo.svg"]) == 0
