# SPDX-License-Identifier: MIT
"""pydiskimg convert in every direction, judged by qemu-img."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.block_devices import beginning
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

COMMAND = [sys.executable, "-m", "pydiskimg", "convert"]
ROOT = Path(__file__).resolve().parent.parent.parent
MIB = 1 << 20
SIZE = 12 * MIB + 512


def convert(*arguments: str | Path, data: bytes | None = None) -> bytes:
    """Run the command with data coming through a pipe on its standard input; returns its standard output."""
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    return done.stdout


def fails(*arguments: str | Path, words: str, data: bytes | None = None, status: int = 1) -> None:
    done = subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=ROOT,
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        timeout=120,
        check=False,
    )
    error = done.stderr.decode()
    assert done.returncode == status, error
    assert "Traceback" not in error
    assert words in error.splitlines()[0]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("convert") / "disk.raw"
    rng = random.Random(8)
    with path.open("wb") as file:
        for _ in range(60):
            file.seek(rng.randrange(0, SIZE - 200_000))
            file.write(rng.choice((rng.randbytes(100_000), b"some text " * 15_000, bytes(150_000))))
        file.truncate(SIZE)
    return path


SOURCES = ("raw", "qcow2", "raw pipe", "qcow2 pipe", "zlib pipe")
TARGETS = {
    "raw": (),
    "qcow2": ("-O", "qcow2"),
    "qcow2 zlib": ("-O", "qcow2", "-c"),
    "qcow2 zstd": ("-O", "qcow2", "-c", "-o", "compression_type=zstd,cluster_size=4k"),
    "qcow2 v2": ("-O", "qcow2", "-o", "compat=0.10,cluster_size=512"),
    "raw -n": ("-n",),
    "qcow2 -n": ("-n", "-O", "qcow2"),
    "raw pipe": (),
    "qcow2 pipe": ("-O", "qcow2"),
    "zlib pipe": ("-O", "qcow2", "-c", "-o", "cluster_size=16k"),
    "zstd pipe": ("-c", "-O", "qcow2", "-o", "compression_type=zstd"),
    "v2 pipe": ("-c", "-O", "qcow2", "-o", "compat=v2"),
}


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", TARGETS)
def test_every_direction(raw: Path, tmp_path: Path, source: str, target: str) -> None:
    arguments: list[str | Path] = list(TARGETS[target])
    data = None
    if source.endswith("pipe"):
        kind = source.split(maxsplit=1)[0]
        data = raw.read_bytes() if kind == "raw" else convert(*(("-c",) * (kind == "zlib")), "-O", "qcow2", raw, "-")
        arguments += ["-f", "raw" if kind == "raw" else "qcow2", "-"]
    else:
        path = raw
        if source == "qcow2":
            path = tmp_path / "source.qcow2"
            run("qemu-img", "convert", "-c", "-O", "qcow2", str(raw), str(path))
        arguments += ["-f", source, path]
    image = tmp_path / "target"
    kind, _, how = target.partition(" ")
    is_raw = kind == "raw"
    if how == "-n":
        make_old_image(image, kind)
    if how == "pipe" or target.endswith("pipe"):
        if data is not None and not is_raw:
            fails(*arguments, "-", data=data, words="needs a source that can be read twice")
            return
        image.write_bytes(convert(*arguments, "-", data=data))
    else:
        convert(*arguments, image, data=data)
    if not is_raw:
        found = json.loads(run("qemu-img", "check", "-f", "qcow2", "--output=json", str(image)))
        assert not any(found.get(what) for what in ("corruptions", "leaks", "check-errors"))
    run("qemu-img", "compare", "-f", "raw" if is_raw else "qcow2", "-F", "raw", str(image), str(raw))


def make_old_image(image: Path, kind: str) -> None:
    """An image of the same size, full of something else."""
    if kind == "raw":
        image.write_bytes(b"\xff" * SIZE)
    else:
        run("qemu-img", "create", "-q", "-f", "qcow2", str(image), str(SIZE))
        run("qemu-io", "-f", "qcow2", "-c", f"write -P 255 0 {SIZE}", str(image))


def test_backing_files_and_snapshots(raw: Path, tmp_path: Path) -> None:
    base, top = tmp_path / "base.raw", tmp_path / "top.qcow2"
    base.write_bytes(raw.read_bytes())
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.raw", "-F", "raw", str(top))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 3 1M 70k", str(top))
    run("qemu-img", "snapshot", "-c", "before", str(top))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 4 1M 70k", str(top))
    fails(top, tmp_path / "x", words="names the backing file 'base.raw'")
    flat = tmp_path / "flat.qcow2"
    flat.write_bytes(convert("--allow-references", tmp_path, "-c", "-O", "qcow2", top, "-"))
    run("qemu-img", "compare", str(flat), str(top))
    before = tmp_path / "before.raw"
    convert("--allow-references", tmp_path, "-l", "before", "--verify", top, before)
    run("qemu-img", "convert", "-l", "before", "-O", "raw", str(top), str(tmp_path / "theirs.raw"))
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(before), str(tmp_path / "theirs.raw"))
    for destination in (base, top):
        before_bytes = destination.read_bytes()
        for more in ((), ("-n",)):
            fails(*more, "--allow-references", tmp_path, top, destination, words="nothing was written")
        assert destination.read_bytes() == before_bytes
    (tmp_path / "link").symlink_to("base.raw")
    fails("--allow-references", tmp_path, top, tmp_path / "link", words="a backing or data file of")
    fails("-l", "nobody", "--allow-references", tmp_path, top, tmp_path / "x", words="nobody")


def test_ends_that_are_killed(raw: Path, tmp_path: Path) -> None:
    """If the writer of a stream dies, the reader fails, and the other way round; no new file appears."""
    sender = subprocess.Popen([*COMMAND, "-O", "qcow2", raw, "-"], cwd=ROOT, stdout=subprocess.PIPE)
    assert sender.stdout is not None
    begin = sender.stdout.read(2 * MIB)
    sender.kill()
    begin += sender.stdout.read()[: MIB // 2]
    sender.stdout.close()
    sender.wait()
    fails("-f", "qcow2", "-", tmp_path / "new", data=begin, words="the stream ends after")
    fails("-f", "qcow2", "-O", "qcow2", "-", tmp_path / "new", data=begin, words="the stream ends after")
    old = tmp_path / "old"
    old.write_bytes(b"\xff" * SIZE)
    fails("-n", "-f", "qcow2", "-", old, data=begin, words="the stream ends after")
    assert beginning(old, MIB) == bytes(MIB)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
    with subprocess.Popen(
        [*COMMAND, "-O", "qcow2", raw, "-"], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as sender:
        assert sender.stdout is not None
        assert sender.stderr is not None
        sender.stdout.close()
        assert b"the reader has closed its end" in sender.stderr.read()
        assert sender.wait(60) == 1


def test_named_pipes_and_descriptors(raw: Path, tmp_path: Path) -> None:
    fifo, target = tmp_path / "fifo", tmp_path / "target"
    os.mkfifo(fifo)
    with subprocess.Popen([*COMMAND, "-c", "-O", "qcow2", raw, fifo], cwd=ROOT) as sender:
        convert("-f", "qcow2", fifo, target)
        assert sender.wait(60) == 0
    assert target.read_bytes() == raw.read_bytes()
    target.write_bytes(convert("-O", "qcow2", raw, "/dev/stdout"))
    run("qemu-img", "compare", str(target), str(raw))
    convert("-f", "qcow2", "/dev/fd/0", tmp_path / "back", data=target.read_bytes())
    assert (tmp_path / "back").read_bytes() == raw.read_bytes()
    with raw.open("rb") as file:
        done = subprocess.run(
            [*COMMAND, "-O", "qcow2", "/dev/stdin", "-"], cwd=ROOT, stdin=file, capture_output=True, check=True
        )
    target.write_bytes(done.stdout)
    run("qemu-img", "compare", str(target), str(raw))
