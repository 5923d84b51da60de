# SPDX-License-Identifier: MIT
"""pydiskimg commit, judged by qemu-img: the same disks afterwards as its own commit leaves."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_chains import contents, form_of, made_chain, twin, write
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu

pytestmark = pytest.mark.oracle

MIB = 1 << 20


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("base_format", ["raw", "qcow2"])
def test_the_same_disks(tmp_path: Path, seed: int, base_format: str) -> None:
    rng = random.Random(seed)
    sizes = rng.choice(((3 * MIB, 3 * MIB), (2 * MIB, 4 * MIB), (4 * MIB, 2 * MIB), (3 * MIB, 4 * MIB, 3 * MIB)))
    ours = made_chain(tmp_path, rng, base_format=base_format, sizes=sizes)
    theirs = twin(ours, tmp_path / "theirs")
    options = rng.choice(([], ["-d"]))
    assert main(["commit", "-q", "--allow-references", str(tmp_path), *options, str(ours[-1])]) == 0
    run("qemu-img", "commit", "-q", "-f", "qcow2", *options, str(theirs[-1]))
    for our, their in zip(ours, theirs, strict=True):
        assert contents(our, form_of(our)) == contents(their, form_of(their))
        if form_of(our) == "qcow2":
            run("qemu-img", "check", "-q", "-f", "qcow2", str(our))
    rows = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", str(ours[-1])))
    assert any(row["depth"] == 0 and row.get("present") for row in rows) == bool(options) or sizes[-1] > sizes[-2]
    if not options:
        assert ours[-1].stat().st_size <= theirs[-1].stat().st_size


def test_into_a_file_further_down(tmp_path: Path) -> None:
    ours = made_chain(tmp_path, random.Random(8), sizes=(3 * MIB, 3 * MIB, 3 * MIB, 3 * MIB))
    theirs = twin(ours, tmp_path / "theirs")
    words = ["--allow-references", str(tmp_path), "-b", str(ours[0]), str(ours[-1])]
    before = ours[-1].read_bytes()
    assert main(["commit", "-q", *words]) == 0
    run("qemu-img", "commit", "-q", "-f", "qcow2", "-b", theirs[0].name, str(theirs[-1]))
    assert contents(ours[0], "qcow2") == contents(theirs[0], "qcow2") == contents(ours[-1], "qcow2")
    assert ours[-1].read_bytes() == before


def test_a_named_backing_file_keeps_the_image(tmp_path: Path) -> None:
    """-b implies -d, for the next file too."""
    chain = made_chain(tmp_path, random.Random(9), sizes=(MIB, MIB))
    theirs = twin(chain, tmp_path / "theirs")
    before = chain[-1].read_bytes()
    assert main(["commit", "-q", "--allow-references", str(tmp_path), "-b", chain[0].name, str(chain[-1])]) == 0
    run("qemu-img", "commit", "-q", "-f", "qcow2", "-b", theirs[0].name, str(theirs[-1]))
    assert contents(chain[0], "qcow2") == contents(theirs[0], "qcow2")
    assert theirs[-1].read_bytes() == before
    assert chain[-1].read_bytes() == before


def test_the_name_of_a_file_further_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is relative to the image, as the names in images are, and not to the current directory."""
    chain = made_chain(tmp_path, random.Random(8), sizes=(3 * MIB, 3 * MIB, 3 * MIB))
    monkeypatch.chdir(tmp_path.parent)
    image, inside = f"{tmp_path.name}/{chain[-1].name}", f"{tmp_path.name}/{chain[0].name}"
    for name, status in ((inside, 1), (chain[0].name, 0)):
        command = ["qemu-img", "commit", "-q", "-f", "qcow2", "-b", name, image]
        assert subprocess.run(command, check=False, capture_output=True).returncode == status
        assert main(["commit", "-q", "--allow-references", tmp_path.name, "-b", name, image]) == status


def test_a_smaller_base_whose_tables_move(tmp_path: Path) -> None:
    """A base made larger is read by its new L1 table: the first data written takes the cluster of the old one."""
    base, top, small = tmp_path / "base", tmp_path / "top", "cluster_size=512"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", small, str(base), "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 960k 64k", str(base))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", small, "-b", "base", "-F", "qcow2", str(top), "2304k")
    # 32 pieces, more than are read ahead; the base is looked up beyond them, when some of them were written.
    pieces = (("-P 2", "-z")[number % 2] for number in range(32))
    run("qemu-io", "-f", "qcow2", *(f"-cwrite {kind} {512 * at} 512" for at, kind in enumerate(pieces)), str(top))
    before = contents(top, "qcow2")
    assert main(["commit", "-q", "-d", "--allow-references", str(tmp_path), str(top)]) == 0
    assert contents(base, "qcow2") == before
    run("qemu-img", "check", "-q", str(base))


def test_at_a_rate(tmp_path: Path) -> None:
    """Two pieces of half a MiB: the second waits until the first has had its time."""
    base, top = tmp_path / "base", tmp_path / "top"
    base.write_bytes(bytes(3 * MIB))
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", str(top))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 512k", "-c", "write -P 2 1M 512k", str(top))
    before = contents(top, "qcow2")
    begin = time.monotonic()
    assert main(["commit", "-q", "-r", "1M", "--allow-references", str(tmp_path), str(top)]) == 0
    assert time.monotonic() - begin >= 0.5
    assert base.read_bytes() == before
    assert contents(top, "qcow2") == before


def test_snapshots_stay(tmp_path: Path) -> None:
    rng = random.Random(2)
    base, top = made_chain(tmp_path, rng, sizes=(3 * MIB, 3 * MIB))
    run("qemu-img", "snapshot", "-c", "kept", str(top))
    write(top, rng, 4, 3 * MIB)
    now = contents(top, "qcow2")
    assert main(["commit", "-q", "--allow-references", str(tmp_path), str(top)]) == 0
    run("qemu-img", "check", "-q", "-f", "qcow2", str(top))
    assert contents(top, "qcow2") == contents(base, "qcow2") == now
    assert len(json.loads(run("qemu-img", "info", "--output=json", str(top)))["snapshots"]) == 1


@pytest.mark.parametrize("busy", [0, 1])
def test_one_of_them_is_in_use(tmp_path: Path, busy: int, capsys: pytest.CaptureFixture[str]) -> None:
    chain = made_chain(tmp_path, random.Random(3), sizes=(3 * MIB, 3 * MIB))
    before = [path.read_bytes() for path in chain]
    with in_qemu(chain[busy], "qcow2"):
        assert main(["commit", "--allow-references", str(tmp_path), str(chain[1])]) == 1
    assert "has locked it" in capsys.readouterr().err
    assert [path.read_bytes() for path in chain] == before


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """The image shows the same all the time, and both are sound; commit may be run again."""
    rng = random.Random(4)
    base, top = made_chain(tmp_path, rng, sizes=(64 * MIB, 64 * MIB))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 50M", str(top))
    now = contents(top, "qcow2")
    for number in range(4):
        words = [sys.executable, "-m", "pydiskimg", "commit", "-q", "--allow-references", str(tmp_path), str(top)]
        with subprocess.Popen(words, env=os.environ) as process:
            time.sleep(0.05 + 0.08 * number)
            process.send_signal(signal.SIGKILL)
        run("qemu-img", "check", "-q", "-f", "qcow2", str(top))
        subprocess.run(["qemu-img", "check", "-q", "-r", "leaks", str(base)], check=True)
        assert contents(top, "qcow2") == now
    assert main(["commit", "-q", "--allow-references", str(tmp_path), str(top)]) == 0
    assert contents(base, "qcow2") == now


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["layer0.qcow2"], "it was not opened, since files that an image names are opened only below"),
        (["base.qcow2"], "has no backing file to commit to"),
        (["--allow-references", ".", "-b", "other", "layer0.qcow2"], "other is not a file of its backing chain"),
        (["raw"], "is a raw image, which has no backing file"),
    ],
)
def test_refused(
    tmp_path: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made_chain(tmp_path, random.Random(5), sizes=(MIB, MIB))
    (tmp_path / "raw").write_bytes(b"x" * 1024)
    monkeypatch.chdir(tmp_path)
    assert main(["commit", *words]) == 1
    assert said in capsys.readouterr().err
