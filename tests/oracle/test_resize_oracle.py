# SPDX-License-Identifier: MIT
"""pydiskimg resize, judged by qemu-img: the same virtual disk, no error and no leak."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

MIB = 1 << 20


def written(path: Path, size: int, options: str = "", *, seed: int = 1) -> Path:
    run("qemu-img", "create", "-q", "-f", "qcow2", *(["-o", options] if options else []), str(path), str(size))
    write(path, size, random.Random(seed))
    return path


def write(path: Path, size: int, rng: random.Random) -> None:
    commands: list[str] = []
    for _ in range(5):
        start = rng.randrange(size // 512) * 512
        commands += ["-c", f"write -P {rng.randrange(1, 255)} {start} {min(size - start, rng.randrange(1, 400) * 512)}"]
    run("qemu-io", "-f", "qcow2", *commands, str(path))


def raw(path: Path, *options: str) -> bytes:
    to = path.with_suffix(".raw")
    run("qemu-img", "convert", *options, "-f", "qcow2", "-O", "raw", str(path), str(to))
    return to.read_bytes()


def virtual_size(path: Path) -> int:
    return int(json.loads(run("qemu-img", "info", "--output=json", str(path)))["virtual-size"])


def check(path: Path) -> None:
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))


@pytest.mark.parametrize("options", ["", "cluster_size=512", "cluster_size=4k,refcount_bits=64", "compat=0.10"])
def test_larger_and_smaller_in_turns(tmp_path: Path, options: str) -> None:
    path = written(tmp_path / "disk.qcow2", 3 * MIB, options)
    rng = random.Random(options)
    data = raw(path)
    for _ in range(8):
        size = rng.randrange(1, 12000) * 512
        words = ["-q"] if rng.random() < 0.5 else ["-q", "--shrink"]
        if size > len(data) and rng.random() < 0.5:
            words = ["-q", f"--preallocation={rng.choice(('metadata', 'falloc', 'full'))}"]
        status = main(["resize", *words, str(path), str(size)])
        assert status == (1 if size < len(data) and "--shrink" not in words else 0)
        if not status:
            data = data[:size].ljust(size, b"\0")
        check(path)
        assert raw(path) == data
        write(path, len(data), rng)
        data = raw(path)


@pytest.mark.parametrize("options", ["", "cluster_size=1k", "cluster_size=16k,extended_l2=on"])
def test_snapshots_keep_what_the_disk_loses(tmp_path: Path, options: str) -> None:
    path = written(tmp_path / "disk.qcow2", 4 * MIB, options)
    before = raw(path)
    run("qemu-img", "snapshot", "-c", "before", str(path))
    write(path, 4 * MIB, random.Random(5))
    now = raw(path)
    assert main(["resize", "-q", "--shrink", str(path), "1300k"]) == 0
    check(path)
    assert raw(path) == now[: 1300 << 10]
    assert raw(path, "-l", "snapshot.name=before") == before[: 1300 << 10]  # as much of it as QEMU shows now
    run("qemu-img", "snapshot", "-a", "before", str(path))
    check(path)
    assert raw(path) == before


def test_the_same_sizes_as_qemu_img(tmp_path: Path) -> None:
    """Signs, units and rounding; a size that begins with a minus is not an option."""
    for number, words in enumerate((["+1M"], ["--shrink", "-1M"], ["7M"], ["--shrink", "2097152b"], ["+1k"])):
        ours, theirs = (written(tmp_path / f"{number}-{who}.qcow2", 4 * MIB) for who in ("ours", "theirs"))
        assert main(["resize", "-q", *words[:-1], str(ours), words[-1]]) == 0
        run("qemu-img", "resize", "-q", "-f", "qcow2", *words[:-1], str(theirs), words[-1])
        sizes = [
            json.loads(run("qemu-img", "info", "--output=json", str(each)))["virtual-size"] for each in (ours, theirs)
        ]
        assert sizes[0] == sizes[1]
        assert raw(ours) == raw(theirs)


def test_what_the_backing_file_has_beyond_the_old_end_does_not_show(tmp_path: Path) -> None:
    base = tmp_path / "base.raw"
    base.write_bytes(b"\x11" * (4 * MIB))
    path = tmp_path / "top.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(path), "1M")
    assert main(["resize", "-q", str(path), "3M"]) == 1  # the backing file is not allowed
    assert main(["resize", "-q", "--allow-references", str(tmp_path), str(path), "3M"]) == 0
    check(path)
    assert raw(path) == b"\x11" * MIB + bytes(2 * MIB)


@pytest.mark.parametrize("preallocation", ["off", "falloc", "full"])
def test_a_raw_file(tmp_path: Path, preallocation: str) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * MIB)
    assert main(["resize", "-q", "-f", "raw", "--preallocation", preallocation, str(path), "3M"]) == 0
    assert path.read_bytes() == b"x" * MIB + bytes(2 * MIB)
    assert (path.stat().st_blocks >= 3 * MIB // 512) == (preallocation != "off")
    assert main(["resize", "-q", "-f", "raw", "--shrink", str(path), "-2560k"]) == 0
    assert path.read_bytes() == b"x" * (MIB // 2)


def test_a_file_in_front_of_which_there_is_no_room(tmp_path: Path) -> None:
    """A limit of the file's size stands for a full disk: the contents stay, and the message has the new size."""
    path = written(tmp_path / "disk.qcow2", MIB)
    before = raw(path)
    limit = os.path.getsize(path) + (64 << 10)
    done = subprocess.run(
        ["prlimit", f"--fsize={limit}", "python3", "-c", _RUN, "resize", "--preallocation=full", str(path), "64M"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert f"the new size of {64 * MIB} bytes" in done.stderr
    assert main(["check", "-q", "-r", "leaks", str(path)]) == 0
    check(path)
    assert raw(path)[:MIB] == before


_RUN = """
import signal, sys
from pydiskimg.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("options", "words", "said"),
    [
        ("compat=0.10", ["--shrink"], "cannot change its size with snapshots"),
        ("", ["--shrink", "--preallocation=full"], "preallocation=full is for images that become larger"),
    ],
)
def test_refused(tmp_path: Path, options: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(tmp_path / "disk.qcow2", 2 * MIB, options)
    run("qemu-img", "snapshot", "-c", "one", str(path))
    before = path.read_bytes()
    assert main(["resize", *words, str(path), "1M"]) == 1
    assert said in capsys.readouterr().err
    assert path.read_bytes() == before
