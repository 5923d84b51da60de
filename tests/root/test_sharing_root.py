# SPDX-License-Identifier: MIT
"""Blocks that files share on XFS and btrfs: commit and convert -C move data without copying, judged by qemu-img."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.host.loop import loop_device
from pydiskimg.host.mount import mounted
from pydiskimg.linux import reflink
from tests.fixtures.programs import Tool, run
from tests.fixtures.qcow2_images import run as qemu
from tests.fixtures.random_chains import make_chain

pytestmark = pytest.mark.root
MIB = 1 << 20


@pytest.fixture(params=["xfs", "btrfs"])
def shared(request: pytest.FixtureRequest, tmp_path: Path, tool: Tool) -> Iterator[Path]:
    """A directory in a file system that can share blocks."""
    image = tmp_path / f"{request.param}.raw"
    with image.open("wb") as file:
        file.truncate(600 * MIB)
    run(tool(f"mkfs.{request.param}"), "-q", str(image))
    with loop_device(image) as loop, mounted(loop.path, fs_type=request.param) as target:
        yield Path(target)


def used(directory: Path) -> int:
    """The bytes that the file system holds, once all is written."""
    os.sync()
    found = os.statvfs(directory)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def fill(image: Path, **writes: str) -> None:
    """Write by qemu-io, and flush; the names say nothing."""
    qemu("qemu-io", *(word for write in writes.values() for word in ("-c", write)), "-c", "flush", str(image))


def chain(directory: Path, kind: str) -> Path:
    """An overlay of 80 MiB of data, zeros, and a piece of a cluster, over a base in which some of that is mapped."""
    base, top = directory / f"base.{kind}", directory / "top.qcow2"
    qemu("qemu-img", "create", "-q", "-f", kind, str(base), "256M")
    qemu("qemu-io", "-f", kind, "-c", "write -P 1 0 48M", "-c", "flush", str(base))
    qemu("qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", base.name, str(top))
    fill(top, a="write -P 2 32M 80M", b="write -z 4M 3M", c="write -P 7 200M 3000", d="write -P 9 16k 4k")
    return top


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_commit_moves_the_blocks(shared: Path, kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    top = chain(shared, kind)
    expected, base = shared / "expected", shared / f"base.{kind}"
    qemu("qemu-img", "convert", "-O", "qcow2", str(top), str(expected))
    before = used(shared)
    main(["commit", "-d", "--allow-references", str(shared), str(top)])
    assert used(shared) - before < 8 * MIB, "the data was copied"
    qemu("qemu-img", "compare", "-f", kind, str(base), str(expected))
    qemu("qemu-img", "compare", str(top), str(expected))
    main(["commit", "--allow-references", str(shared), str(top)])
    qemu("qemu-img", "compare", "-f", kind, str(base), str(expected))
    for image in (top, *([base] if kind == "qcow2" else [])):
        qemu("qemu-img", "check", str(image))
    assert "Image committed." in capfd.readouterr().out


@pytest.mark.parametrize("options", ["-O raw", "-O qcow2", "-O qcow2 -o cluster_size=4k", "-O qcow2 -o extended_l2=on"])
def test_convert_shares_on_request(shared: Path, options: str) -> None:
    top = chain(shared, "qcow2")
    new, copied = shared / "new", shared / "copied"
    start = used(shared)
    main(["convert", "-C", "--verify", "--allow-references", str(shared), *options.split(), str(top), str(new)])
    between = used(shared)
    main(["convert", "--allow-references", str(shared), *options.split(), str(top), str(copied)])
    assert between - start < 12 * MIB, "the data was copied"
    assert used(shared) - between > 100 * MIB, "without -C a copy is a copy"
    qemu("qemu-img", "compare", "-f", options.split()[1], str(new), str(top))
    if "qcow2" in options:
        qemu("qemu-img", "check", str(new))
    fill(top, a="write -P 99 40M 8M")
    qemu("qemu-img", "compare", "-f", options.split()[1], "-F", options.split()[1], str(new), str(copied))


@pytest.mark.parametrize("seed", range(12))
def test_random_chains(shared: Path, seed: int) -> None:
    top, kind = make_chain(shared, seed)
    main(["convert", "-C", "--allow-references", str(shared), "-f", kind, "-O", "qcow2", str(top), str(shared / "new")])
    qemu("qemu-img", "compare", "-f", kind, str(top), str(shared / "new"))
    qemu("qemu-img", "check", str(shared / "new"))


def test_a_refusal_half_way_leaves_a_copy(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where a file has as many references to one block as the file system counts."""
    real, calls = reflink.share_blocks, iter(range(1000))

    def share_blocks(*where: int) -> None:
        if next(calls) >= 20:
            raise OSError(22, "Invalid argument")
        real(*where)

    monkeypatch.setattr(reflink, "share_blocks", share_blocks)
    top = chain(shared, "qcow2")
    for kind in ("raw", "qcow2"):
        main(["convert", "-C", "--allow-references", str(shared), "-O", kind, str(top), str(shared / kind)])
        qemu("qemu-img", "compare", "-F", kind, str(top), str(shared / kind))
    qemu("qemu-img", "check", str(shared / "qcow2"))


def test_other_file_systems_copy(shared: Path, tmp_path: Path) -> None:
    """Another file system, and one without the operation: a copy, without a word."""
    top = chain(shared, "qcow2")
    main(["convert", "-C", "--allow-references", str(shared), str(top), str(tmp_path / "new.raw")])
    qemu("qemu-img", "compare", "-F", "raw", str(top), str(tmp_path / "new.raw"))
    main(["convert", "-C", str(tmp_path / "new.raw"), str(tmp_path / "again.raw")])
    assert not subprocess.run(["cmp", tmp_path / "new.raw", tmp_path / "again.raw"], check=False).returncode


def test_an_image_of_odd_length(shared: Path) -> None:
    (shared / "odd").write_bytes(random.Random(1).randbytes(3 * MIB + 1000))
    main(["convert", "-C", "-f", "raw", str(shared / "odd"), str(shared / "new")])
    main(["convert", "-C", "-f", "raw", "-O", "qcow2", str(shared / "odd"), str(shared / "new.qcow2")])
    assert (shared / "new").read_bytes()[: 3 * MIB + 1000] == (shared / "odd").read_bytes()
    qemu("qemu-img", "compare", "-f", "raw", str(shared / "odd"), str(shared / "new.qcow2"))
