# SPDX-License-Identifier: MIT
"""pydiskimg create, judged by qemu-img: the image is clean and is what was asked for."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_images import qemu_info, run

pytestmark = pytest.mark.oracle


def info(path: Path) -> dict[str, Any]:
    facts: dict[str, Any] = qemu_info(path)
    return facts


def create(*arguments: str | Path) -> None:
    assert main(["create", "-q", *map(str, arguments)]) == 0


@pytest.mark.parametrize(
    ("size", "cluster_size"),
    [("0", "64k"), ("1", "512"), ("513", "4k"), ("10G", "4k"), ("10G", "64k"), ("64T", "64k"), ("64T", "2M")],
)
@pytest.mark.parametrize("more", ["compat=0.10", "compat=1.1", "compat=v3,compression_type=zstd"])
def test_an_empty_qcow2(tmp_path: Path, size: str, cluster_size: str, more: str) -> None:
    path = tmp_path / "new"
    create("-f", "qcow2", "-o", f"cluster_size={cluster_size},{more}", path, size)
    run("qemu-img", "check", "-f", "qcow2", str(path))
    theirs = tmp_path / "theirs"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", f"cluster_size={cluster_size},{more}", str(theirs), size)
    expected, found = info(theirs), info(path)
    for facts in expected, found:
        del facts["filename"], facts["actual-size"]
    assert found == expected


@pytest.mark.parametrize("size", ["0", "1000", "1G"])
def test_an_empty_raw(tmp_path: Path, size: str) -> None:
    create(tmp_path / "ours", size)
    run("qemu-img", "create", "-q", "-f", "raw", str(tmp_path / "theirs"), size)
    assert (tmp_path / "ours").stat().st_size == (tmp_path / "theirs").stat().st_size


@pytest.mark.parametrize(("kind", "size"), [("raw", None), ("qcow2", None), ("qcow2", "32M")])
def test_an_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, size: str | None) -> None:
    (tmp_path / "images").mkdir()
    run("qemu-img", "create", "-q", "-f", kind, str(tmp_path / "images" / "base"), "16M")
    run("qemu-io", "-f", kind, "-c", "write -P 5 1M 1M", str(tmp_path / "images" / "base"))
    monkeypatch.chdir(tmp_path)
    create("-f", "qcow2", "-b", "base", "-F", kind, "images/overlay", *([size] if size else []))
    facts = info(Path("images/overlay"))
    assert facts["backing-filename"] == "base"
    assert facts["full-backing-filename"] == "images/base"
    assert facts["backing-filename-format"] == kind
    assert facts["virtual-size"] == (32 if size else 16) << 20
    run("qemu-img", "check", "images/overlay")
    run("qemu-io", "-f", "qcow2", "-c", "read -P 5 1M 1M", "-c", "write -P 6 3M 1M", "images/overlay")
    run("qemu-img", "check", "images/overlay")


def test_an_overlay_of_what_is_not_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "overlay"
    create("-f", "qcow2", "-u", "-b", "nbd://nowhere/disk", "-F", "raw", path, "1G")
    assert info(path)["backing-filename"] == "nbd://nowhere/disk"


def test_what_was_there_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "image"
    path.write_bytes(b"old" * 1000000)
    path.chmod(0o640)
    create("-f", "qcow2", path, "1G")
    assert info(path)["virtual-size"] == 1 << 30
    assert path.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path) == ["image"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["-f", "qcow2", "-b", "missing", "-F", "raw", "FILE"], "missing: cannot open the image: No such file"),
        (["-f", "qcow2", "-b", "old", "-F", "qcow2", "FILE"], "old: not a qcow2 image"),
        (["-f", "qcow2", "-b", "image", "-F", "raw", "FILE"], "is the backing file and the new image at once"),
        (["-f", "qcow2", "-b", "nbd:x", "-F", "raw", "FILE", "1G"], "nbd:x: is the name of a protocol"),
        (["-f", "qcow2", "-o", "cluster_size=512", "FILE", "64T"], "is too large"),
    ],
)
def test_a_refusal_leaves_the_old_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    (tmp_path / "image").write_bytes(b"the image")
    (tmp_path / "old").write_bytes(b"nothing much, but more than a header has" * 10)
    words = [str(tmp_path / "image") if word == "FILE" else word for word in arguments]
    assert main(["create", *words]) == 1
    assert sentence in capsys.readouterr().err
    assert (tmp_path / "image").read_bytes() == b"the image"


@pytest.mark.parametrize(
    "arguments",
    [
        ["FILE"],
        ["FILE", "many"],
        ["-b", "base", "-F", "raw", "FILE", "1G"],
        ["-o", "cluster_size=4k", "FILE", "1G"],
        ["-f", "qcow2", "-b", "base", "FILE", "1G"],
        ["-f", "qcow2", "-F", "raw", "FILE", "1G"],
        ["-f", "qcow2", "-u", "-b", "base", "-F", "raw", "FILE"],
    ],
)
def test_usage(tmp_path: Path, arguments: list[str]) -> None:
    words = [str(tmp_path / "image") if word == "FILE" else word for word in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["create", *words])
    assert ended.value.code == 1
    assert not (tmp_path / "image").exists()


OPTION_LISTS = [
    ["help"],
    ["?"],
    ["cluster_size=4k,help"],
    ["help,cluster_size=4k"],
    ["nonsense=1,?"],
    ["cluster_size=4k", "help"],
    [",help,"],
    ["help,"],
    [",help"],
    [",,help"],
    [""],
    [","],
    ["cluster_size=4k,"],
    [",cluster_size=4k"],
    ["cluster_size=4k,,help"],
    ["cluster_size=4k,", "help"],
    ["help=on"],
    ["cluster_size"],
    ["nonsense=on"],
    ["compat=0.10,cluster_size=4k"],
    ["cluster_size=8k", "cluster_size=4k"],
    ["extended_l2=on"],
    ["extended_l2=on,cluster_size=8k"],
    ["extended_l2=on,compat=0.10"],
]
OVERLAYS = [
    ["-o", "backing_file=base,backing_fmt=raw"],
    ["-o", "backing_file=base", "-o", "backing_fmt=raw"],
    ["-o", "backing_file=base", "-F", "raw"],
    ["-o", "backing_fmt=raw", "-b", "base"],
    ["-o", "backing_file=missing,backing_fmt=raw", "-b", "base"],
    ["-o", "backing_file=a,,b,backing_fmt=raw"],
    ["-o", "backing_file=missing,backing_fmt=raw"],
    ["-o", "backing_file=missing,backing_fmt=raw", "-u", "1M"],
    ["-o", "backing_file=missing,backing_fmt=raw", "-u"],
    ["-o", "backing_file=,backing_fmt=raw", "1M"],
    ["-o", "backing_file=base", "1M"],
    ["-o", "backing_fmt=raw", "1M"],
    ["-o", "backing_file=base,backing_fmt=vmdk", "1M"],
    ["-o", "backing_file=base,backing_fmt=", "1M"],
]


def qemu_img(*arguments: str) -> bool:
    return subprocess.run(["qemu-img", *arguments], capture_output=True, check=False).returncode == 0


def ours(*arguments: str) -> bool:
    try:
        return main(arguments) == 0
    except SystemExit as ended:
        return not ended.code


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "a,b"):
        (tmp_path / name).write_bytes(bytes(2 << 20))
    return tmp_path


@pytest.mark.parametrize("options", OPTION_LISTS)
@pytest.mark.parametrize("command", ["create", "convert"])
def test_a_list_of_options_is_read_as_qemu_img_reads_it(bases: Path, command: str, options: list[str]) -> None:
    words = [word for text in options for word in ("-o", text)]
    words = ["create", "-f", "qcow2", *words] if command == "create" else ["convert", "-O", "qcow2", *words, "base"]
    rest = ["1M"] if command == "create" else []
    assert ours(*words, "ours", *rest) == qemu_img(*words, "theirs", *rest)
    assert (bases / "ours").exists() == (bases / "theirs").exists()
    if (bases / "ours").exists():
        assert info(bases / "ours")["cluster-size"] == info(bases / "theirs")["cluster-size"]


@pytest.mark.parametrize("words", OVERLAYS)
def test_a_backing_file_among_the_options(bases: Path, words: list[str]) -> None:
    size = [word for word in words if word == "1M"]
    words = ["create", "-q", "-f", "qcow2", *(word for word in words if word != "1M")]
    assert ours(*words, "ours", *size) == qemu_img(*words, "theirs", *size)
    assert (bases / "ours").exists() == (bases / "theirs").exists()
    if (bases / "ours").exists():
        keys = ("virtual-size", "backing-filename", "backing-filename-format")
        found, expected = ([info(bases / name)[key] for key in keys] for name in ("ours", "theirs"))
        assert found == expected
