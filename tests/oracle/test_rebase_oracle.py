# SPDX-License-Identifier: MIT
"""pydiskimg rebase, judged by qemu-img: the image shows what it did, and names the new file."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_chains import contents, made_chain, twin, write
from tests.fixtures.qcow2_images import run
from tests.fixtures.used_by_qemu import in_qemu

pytestmark = pytest.mark.oracle

MIB = 1 << 20


def info(path: Path) -> Any:
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))
    return told(path)


def told(path: Path) -> Any:
    """Without opening the backing file."""
    return json.loads(run("qemu-img", "info", "--output=json", str(path)))


def other_base(directory: Path, rng: random.Random, size: int, form: str) -> Path:
    path = directory / f"other.{form}"
    run("qemu-img", "create", "-q", "-f", form, str(path), str(size))
    if form == "qcow2":
        write(path, rng, 6, size)
    else:
        path.write_bytes(rng.randbytes(size // 2) + b"\x11" * (size - size // 2))
    return path


@pytest.mark.parametrize("form", ["raw", "qcow2"])
@pytest.mark.parametrize("seed", range(5))
def test_another_base(tmp_path: Path, seed: int, form: str) -> None:
    """Larger, smaller or as large; with the other's contents, the same, or zeros."""
    rng = random.Random(seed)
    sizes = rng.choice(((3 * MIB, 3 * MIB), (2 * MIB, 4 * MIB), (4 * MIB, 2 * MIB + 512), (3 * MIB, 4 * MIB, 3 * MIB)))
    chain = made_chain(tmp_path, rng, sizes=sizes)
    other = other_base(tmp_path, rng, rng.choice((2 * MIB, 3 * MIB, 5 * MIB)), form)
    theirs = twin([*chain, other], tmp_path / "theirs")[-2]
    before = contents(chain[-1], "qcow2")
    words = ["-b", other.name, "-F", form]
    assert main(["rebase", "--allow-references", str(tmp_path), *words, str(chain[-1])]) == 0
    run("qemu-img", "rebase", "-f", "qcow2", *words, str(theirs))
    assert contents(chain[-1], "qcow2") == contents(theirs, "qcow2") == before
    found = info(chain[-1])
    assert (found["backing-filename"], found["backing-filename-format"]) == (other.name, form)
    stored, expected = (mapped(path) for path in (chain[-1], theirs))
    assert stored <= expected


def mapped(path: Path) -> int:
    """Bytes that the image itself holds."""
    rows = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", str(path)))
    return sum(row["length"] for row in rows if row["depth"] == 0 and row["present"])


@pytest.mark.parametrize("seed", range(3))
def test_one_file_further_down(tmp_path: Path, seed: int) -> None:
    """What both chains show out of one file is not compared, nor written."""
    chain = made_chain(tmp_path, random.Random(seed), sizes=(3 * MIB, 3 * MIB, 3 * MIB, 3 * MIB))
    before = contents(chain[-1], "qcow2")
    assert main(["rebase", "--allow-references", str(tmp_path), "-b", chain[0].name, str(chain[-1])]) == 0
    assert contents(chain[-1], "qcow2") == before
    assert info(chain[-1])["backing-filename"] == chain[0].name
    assert mapped(chain[-1]) < 3 * MIB


@pytest.mark.parametrize("options", ["", "compat=0.10", "extended_l2=on"])
@pytest.mark.parametrize("compress", [[], ["-c"]])
def test_zeros_hide_a_larger_base(tmp_path: Path, options: str, compress: list[str]) -> None:
    """What was zero beyond the old base's end, and zeros in it, are zero over the new one; -c compresses the rest."""
    old, new, top = (tmp_path / name for name in ("old", "new", "top"))
    old.write_bytes(b"\1" * 64 * 1024 + bytes(MIB))
    new.write_bytes(b"\7" * 4 * MIB)
    words = ["-o", options] if options else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *words, "-b", "old", "-F", "raw", str(top), "3M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 9 2M 100k", str(top))
    before = contents(top, "qcow2")
    words = ["rebase", "--allow-references", str(tmp_path), "-U", "-t", "none", *compress, "-b", "new", "-F", "raw"]
    assert main([*words, str(top)]) == 0
    assert contents(top, "qcow2") == before
    info(top)
    rows = json.loads(run("qemu-img", "map", "--output=json", "-f", "qcow2", str(top)))
    data = sum(row["length"] for row in rows if row["depth"] == 0 and row["data"])
    assert data <= (3 * MIB if options == "compat=0.10" else 256 * 1024)
    if compress:
        assert main(["check", "--output=json", str(top)]) == 0
        assert int(run("qemu-img", "check", "-f", "qcow2", str(top)).partition("fragmented, ")[2].partition(".")[0]) > 0


def test_onto_none(tmp_path: Path) -> None:
    chain = made_chain(tmp_path, random.Random(3), sizes=(3 * MIB, 4 * MIB))
    before = contents(chain[-1], "qcow2")
    assert main(["rebase", "--allow-references", str(tmp_path), "-b", "", str(chain[-1])]) == 0
    assert "backing-filename" not in info(chain[-1])
    chain[0].unlink()
    assert contents(chain[-1], "qcow2") == before


@pytest.mark.parametrize("options", ["", "cluster_size=512", "compat=0.10", "compat=0.10,cluster_size=512"])
def test_the_name_alone(tmp_path: Path, options: str) -> None:
    """-u opens nothing; what else the header says is kept."""
    path = tmp_path / "top.qcow2"
    words = ["-u", *(["-o", options] if options else []), "-b", "first.qcow2", "-F", "qcow2"]
    run("qemu-img", "create", "-q", "-f", "qcow2", *words, str(path), "5M")
    for backing, form in (("second.raw", "raw"), ("a name, with=all/sorts of things.qcow2", "qcow2"), ("x", "raw")):
        assert main(["rebase", "-u", "-b", backing, "-F", form, str(path)]) == 0
        theirs = tmp_path / "theirs.qcow2"
        run("qemu-img", "create", "-q", "-f", "qcow2", *words, str(theirs), "5M")
        run("qemu-img", "rebase", "-f", "qcow2", "-u", "-b", backing, "-F", form, str(theirs))
        assert main(["check", "-q", str(path)]) == 0
        ours, expected = told(path), told(theirs)
        for name in ("backing-filename", "backing-filename-format", "virtual-size", "format-specific"):
            assert ours[name] == expected[name]
    assert main(["rebase", "-u", "-b", "", str(path)]) == 0
    assert "backing-filename" not in info(path)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 0 1M", str(path))


def test_killed_at_any_moment(tmp_path: Path) -> None:
    rng = random.Random(4)
    chain = made_chain(tmp_path, rng, sizes=(64 * MIB, 64 * MIB))
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 60M", str(chain[0]))
    before = contents(chain[-1], "qcow2")
    other = other_base(tmp_path, rng, 32 * MIB, "raw")
    command = [sys.executable, "-m", "pydiskimg", "rebase", "--allow-references", str(tmp_path), "-b", other.name]
    for number in range(4):
        with subprocess.Popen([*command, "-F", "raw", str(chain[-1])], env=os.environ) as process:
            time.sleep(0.05 + 0.08 * number)
            process.send_signal(signal.SIGKILL)
        subprocess.run(["qemu-img", "check", "-q", "-r", "leaks", str(chain[-1])], check=True)
        assert contents(chain[-1], "qcow2") == before
    assert main([*command[3:], "-F", "raw", str(chain[-1])]) == 0
    assert contents(chain[-1], "qcow2") == before


def test_in_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chain = made_chain(tmp_path, random.Random(3), sizes=(MIB, MIB))
    before = chain[1].read_bytes()
    with in_qemu(chain[1], "qcow2"):
        assert main(["rebase", "-u", "-b", "", str(chain[1])]) == 1
    assert "has locked it" in capsys.readouterr().err
    assert chain[1].read_bytes() == before


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["-b", "base.qcow2", "layer0.qcow2"], 1, "it was not opened, since files that an image names are opened only"),
        (["--allow-references", ".", "-b", "gone", "layer0.qcow2"], 1, "gone: cannot open the image"),
        (["--allow-references", ".", "-b", "layer0.qcow2", "layer0.qcow2"], 1, "cannot be its own backing file"),
        (["--allow-references", ".", "-b", "nbd:x", "layer0.qcow2"], 1, "is the name of a protocol to QEMU"),
        (["-u", "-b", "x" * 1024, "-F", "raw", "layer0.qcow2"], 1, "has 1024 bytes, at most 1023 are possible"),
        (["-u", "-b", "x", "layer0.qcow2"], 1, "-u needs -F"),
        (["-u", "-b", "x", "-F", "raw", "raw"], 1, "raw: not a qcow2 image"),
    ],
)
def test_refused(
    tmp_path: Path,
    words: list[str],
    status: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chain = made_chain(tmp_path, random.Random(5), sizes=(MIB, MIB))
    before = chain[1].read_bytes()
    (tmp_path / "raw").write_bytes(b"x" * 1024)
    monkeypatch.chdir(tmp_path)
    try:
        ended = main(["rebase", *words])
    except SystemExit as wrong:
        ended = int(str(wrong.code))
    assert ended == status
    assert said in capsys.readouterr().err
    assert chain[1].read_bytes() == before
