# SPDX-License-Identifier: MIT
"""Bad input to each command that changes a disk or looks at one: one sentence, status 1 or 2, the disk as it was."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pydiskimg.cli import main
from tests.fixtures.checkout import ROOT
from tests.fixtures.ext_files import made_ext, sized
from tests.fixtures.programs import run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
CHANGING = (
    *("partition create IMAGE", "partition add IMAGE", "partition delete IMAGE 1", "partition set --bootable IMAGE 1"),
    *("grow IMAGE", "shrink IMAGE", "shrink --cut IMAGE", "sparsify IMAGE", "write --yes IMAGE device"),
    *("write --yes good.raw IMAGE", "mkfs IMAGE", "mkswap IMAGE", "resize IMAGE +1M", "rm IMAGE /file"),
    *("mkdir IMAGE /directory", "copy-in IMAGE file /", "tar-in IMAGE file /"),
)
READING = (
    *("filesystems IMAGE", "df IMAGE", "hash IMAGE", "partition list IMAGE", "bmap IMAGE", "show IMAGE"),
    *("diff IMAGE good.raw", "diff good.raw IMAGE", "show -o new.svg IMAGE"),
)
IMAGES = (
    *("missing", "directory", "fifo", "loop", "image.vmdk", "short.qcow2", "lying.qcow2", "tables.qcow2", "", "-"),
    *("/dev/null", "x" * 300, "\udcff\n\x1b[31m"),
)
WRONG_USAGE = (
    *("partition delete good.raw 0", "partition delete good.raw 99999", "partition delete good.raw one"),
    *("partition add --size 0 good.raw", "partition add --size -1M good.raw", "partition add --size 9E good.raw"),
    *("partition add --size 7E good.raw", "partition add --start 1 good.raw", "partition add --start 7E good.raw"),
    *("partition add --number 0 good.raw", "partition add --number 129 good.raw", "partition add --type no good.raw"),
    *("partition add --uuid 1 good.raw", "partition set good.raw 4 --name x", "partition create good.raw"),
    *("partition create --force --id x good.raw", "partition set --name " + "x" * 37 + " good.raw 1"),
    *("shrink --size 0 good.raw", "shrink --size -1 good.raw", "shrink --size 1 good.raw", "shrink --size 9E good.raw"),
    *("partition", "partition add", "partition no good.raw", "grow", "sparsify -f vdi good.raw", "write good.raw"),
    *("write --bmap missing --yes good.raw device", "write --bmap file --yes good.raw device", "hash -a no good.raw"),
    *("bmap -o directory good.raw", "show -o missing/x.svg good.raw", "grow -f qcow2 good.raw", "diff good.raw"),
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good disk, and what is wrong in several ways."""
    directory = tmp_path_factory.mktemp("bad input")
    good = sized(directory / "good.raw", 24 * MIB)
    run("sfdisk", "-q", str(good), given="label: gpt\nsize=8M\nsize=8M\n")
    part = made_ext(str, directory / "part", "-t ext4", 8 * MIB)
    with good.open("r+b") as file:
        file.seek(9 * MIB)
        file.write(part.read_bytes())
    run("qemu-img", "convert", "-O", "qcow2", str(good), str(directory / "good.qcow2"))
    data = (directory / "good.qcow2").read_bytes()
    (directory / "short.qcow2").write_bytes(data[:60])
    (directory / "lying.qcow2").write_bytes(data[:24] + (1 << 60).to_bytes(8, "big") + data[32:])
    (directory / "tables.qcow2").write_bytes(data[:40] + (1 << 50).to_bytes(8, "big") + data[48:])
    (directory / "image.vmdk").write_bytes(b"KDMV" + bytes(65532))
    (directory / "file").write_bytes(b"a text\n")
    sized(directory / "device", 24 * MIB)
    (directory / "directory").mkdir()
    os.mkfifo(directory / "fifo")
    (directory / "loop").symlink_to("loop")
    return directory


@contextmanager
def unchanged(directory: Path) -> Iterator[None]:
    """Every file has the bytes that it had, and there is none more."""

    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}

    before = contents()
    yield
    assert contents() == before


def ended_with(words: list[str]) -> int | str | None:
    try:
        return main(words)
    except SystemExit as ended:
        return ended.code


def sentence(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run the command, which fails; return what it says."""
    assert ended_with(words) in (1, 2), words
    said = capsys.readouterr().err
    first, _, usage = said.partition("\n")
    assert first.startswith("pydiskimg"), words
    assert not usage or usage.startswith("usage: "), (words, said)
    assert "Traceback" not in said
    assert first.isprintable()
    return first


@pytest.mark.parametrize("command", [*CHANGING, *READING])
def test_of_each_bad_image(
    command: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    for image in IMAGES:
        may_be_written = image.endswith((".vmdk", ".qcow2"))
        if command == "write --yes good.raw IMAGE" and may_be_written:
            continue  # they are too small, which another test has
        if command == "resize IMAGE +1M" and image == "image.vmdk":
            continue
        words = [image if word == "IMAGE" else word for word in command.split()]
        with unchanged(made):
            sentence(words, capsys)


@pytest.mark.parametrize("command", WRONG_USAGE)
def test_of_wrong_arguments(
    command: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    with unchanged(made):
        sentence(command.split(), capsys)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
@pytest.mark.parametrize("command", [*CHANGING, *READING])
def test_without_permission(
    command: str, made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    image = made / "good.raw"
    words = [str(image) if word == "IMAGE" else word for word in command.split()]
    mode = 0o600
    os.chmod(image, mode)
    with unchanged(made):
        os.seteuid(65534)
        try:
            said = sentence(words, capsys)
        finally:
            os.seteuid(0)
        assert "ermission" in said


@pytest.mark.parametrize("name", ["a b.raw", "a\nb.raw", "ünïcödé.raw", "-rf.raw"])
def test_names_of_any_kind_in_a_plain_locale(name: str, made: Path, tmp_path: Path) -> None:
    """Each command takes them, and prints one line of each result."""
    path = tmp_path / name
    path.write_bytes((made / "good.raw").read_bytes())
    environment = os.environ | {"LC_ALL": "C", "PYTHONPATH": str(ROOT)}
    for words in (["partition", "add", "--size", "1M"], ["sparsify", "-q"], ["grow"], ["hash"]):
        done = subprocess.run(
            [sys.executable, "-m", "pydiskimg", *words, "--", name],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            umask=0o077,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.count(b"\n") == (words[0] != "sparsify")
