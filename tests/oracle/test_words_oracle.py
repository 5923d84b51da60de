# SPDX-License-Identifier: MIT
"""What pydiskimg prints for people is what qemu-img prints: word for word, on the same stream, in the same order.

info and snapshot -l are in test_info_oracle.py, compare is in test_compare_oracle.py too. Messages of errors are ours.
"""

from __future__ import annotations

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.both_programs import Said, by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

CLUSTER = 65536


def assert_equal(*words: object) -> Said:
    """Both print the same and end with the same status, on images that the command only reads."""
    mine, theirs = by_pydiskimg(*words), by_qemu_img(*words)
    assert mine.out == theirs.out
    assert mine.status == theirs.status
    assert bool(mine.err) == bool(theirs.err), (mine.err, theirs.err)
    return mine


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory of the test, with base.qcow2 of 1 MiB: 256 KiB of data at 64 KiB."""
    monkeypatch.chdir(tmp_path)
    run("qemu-img", "create", "-q", "-f", "qcow2", "base.qcow2", "1M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 256k", "base.qcow2")
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "x 1.5M",
        "-q x 1M",
        "-f raw -o preallocation=falloc x 5000",
        "-f raw -o preallocation=off,nocow=off,extent_size_hint=0,size=1k x",
        "-f qcow2 x 3000000",
        "-f qcow2 -o compat=0.10 -o cluster_size=4k,size=3000000 x",
        "-f qcow2 -o preallocation=metadata,compat=v3,cluster_size=4k,refcount_bits=8,compression_type=zstd x 1M",
        "-f qcow2 -o lazy_refcounts=on,extended_l2=off,encryption=off,nocow=off,extent_size_hint=0 x 1M",
        "-f qcow2 -o lazy_refcounts,noextended_l2,noencryption,nonocow,cluster_size=4k x 1M",
        "-f qcow2 -o nolazy_refcounts,extended_l2 x 1M",
        "-f qcow2 -o compat=1.1,backing_file=base.qcow2,backing_fmt=qcow2 x",
        "-f qcow2 -b base.qcow2 -F qcow2 -o size=2M x",
        "-f qcow2 -u -b a,b -F raw x 5000",
    ],
)
def test_create(directory: Path, words: str) -> None:
    mine = by_pydiskimg("create", *words.split())
    os.unlink("x")
    assert mine == by_qemu_img("create", *words.split())


def damaged(name: str, damage: Callable[[bytearray, int], None]) -> Path:
    """A copy of base.qcow2 whose bytes are changed by damage, which gets the offset of the refcount block too."""
    data = bytearray(Path("base.qcow2").read_bytes())
    block = struct.unpack_from(">Q", data, struct.unpack_from(">Q", data, 48)[0])[0]
    damage(data, block)
    Path(name).write_bytes(data)
    return Path(name)


def leaks(data: bytearray, block: int) -> None:
    end = -(-len(data) // CLUSTER)
    struct.pack_into(">HH", data, block + 2 * end, 1, 1)
    data += bytes((end + 2) * CLUSTER - len(data))


def corruptions(data: bytearray, block: int) -> None:
    last = -(-len(data) // CLUSTER) - 1
    struct.pack_into(">HH", data, block + 2 * (last - 1), 0, 2)


def feature_bits(bits: int) -> Callable[[bytearray, int], None]:
    def damage(data: bytearray, _: int) -> None:
        data[79] |= bits

    return damage


@pytest.mark.parametrize(
    ("damage", "status"), [(leaks, 3), (corruptions, 2), (feature_bits(1), 0), (feature_bits(2), 0)]
)
def test_check_of_damaged_images(directory: Path, damage: Callable[[bytearray, int], None], status: int) -> None:
    path = damaged("damaged.qcow2", damage)
    assert assert_equal("check", path).status == status
    assert assert_equal("check", "-q", path).out == ""
    assert_equal("info", path)


@pytest.mark.parametrize(
    "options", ["compat=0.10", "cluster_size=512", "extended_l2=on", "data_file=data.raw", "preallocation=metadata"]
)
def test_check(directory: Path, options: str) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, "image", "5M")
    assert_equal("check", "image")
    run("qemu-io", "-f", "qcow2", "-c", "write 100k 300k", "-c", "write 3M 64k", "image")
    if options.startswith("cluster_size"):
        run("qemu-io", "-f", "qcow2", "-c", "write -c 2M 64k", "image")
    run("qemu-img", "snapshot", "-c", "one", "image") if "data_file" not in options else None
    assert_equal("check", "image")


def test_what_cannot_be_checked(directory: Path) -> None:
    Path("raw").write_bytes(bytes(4096))
    mine = assert_equal("check", "raw")
    assert (mine.status, mine.out) == (63, "")
    Path("cut").write_bytes(Path("base.qcow2").read_bytes()[:100])
    assert assert_equal("check", "cut").status == 1


def test_map(directory: Path) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top")
    run("qemu-io", "-f", "qcow2", "-c", "write 0 64k", "-c", "write -z 128k 64k", "top")
    mine = by_pydiskimg("map", "--allow-references", ".", "top")
    assert mine == by_qemu_img("map", "top")
    assert "\n0               0x10000 " in mine.out
    assert_equal("map", "-s", "64k", "-l", "64k", "base.qcow2")
    shutil.copy("base.qcow2", "raw")
    assert_equal("map", "-f", "raw", "raw")


@pytest.mark.parametrize(
    "words",
    ["--size 1G", "--size 1G -O qcow2", "-O qcow2 base.qcow2", "base.qcow2", "-O qcow2 -o cluster_size=4k bits"],
)
def test_measure(directory: Path, words: str) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "bits", "8M")
    run("qemu-img", "bitmap", "--add", "bits", "one")
    assert_equal("measure", *words.split())


@pytest.mark.parametrize("words", ["one 2M", "one +1M", "--shrink one 512k", "-q one 2M", "-f raw raw 2M"])
def test_resize(directory: Path, words: str) -> None:
    said = []
    for program in (by_pydiskimg, by_qemu_img):
        shutil.copy("base.qcow2", "one")
        Path("raw").write_bytes(bytes(1 << 20))
        said.append(program("resize", *words.split()))
    assert said[0] == said[1]


@pytest.mark.parametrize("options", [[], ["-q"], ["-p"], ["-d"], ["-q", "-p"]])
def test_commit_and_rebase(directory: Path, options: list[str]) -> None:
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 500k 64k", "top")
    for words in (["commit", *options, "top"], ["rebase", *options, "-b", "", "top"]):
        if words[:2] == ["rebase", "-d"]:
            continue
        said = []
        for program, allowed in ((by_pydiskimg, ["--allow-references", "."]), (by_qemu_img, [])):
            shutil.copy("top", "kept")
            said.append(program(*words[:1], *allowed, *words[1:]))
            shutil.copy("kept", "top")
        assert said[0].status == said[1].status == 0
        mine, theirs = (one.out.replace("\r", "\n").split("\n") for one in said)
        assert [line for line in mine if line and "%" not in line] == [
            line for line in theirs if line and "%" not in line
        ]
        assert ("    (100.00/100%)" in mine) == ("    (100.00/100%)" in theirs)


def test_convert_shows_progress_to_programs(directory: Path) -> None:
    mine, theirs = by_pydiskimg("convert", "-p", "base.qcow2", "a"), by_qemu_img("convert", "-p", "base.qcow2", "b")
    assert mine.out.startswith("    (0.00/100%)\r")
    assert mine.out.endswith("    (100.00/100%)\r\n")
    assert theirs.out.startswith("    (0.00/100%)\r")
    assert theirs.out.endswith("    (100.00/100%)\r\n")
    assert by_pydiskimg("convert", "-p", "-q", "base.qcow2", "a") == by_qemu_img(
        "convert", "-p", "-q", "base.qcow2", "a"
    )


def test_strict_compare(directory: Path) -> None:
    run("qemu-img", "resize", "-q", "base.qcow2", "2M")
    Path("raw").write_bytes(bytes(1 << 20))
    for words in ("-s raw base.qcow2", "-s raw raw", "-s base.qcow2 base.qcow2", "raw base.qcow2", "-p -q raw raw"):
        assert_equal("compare", *words.split())


@pytest.mark.parametrize("words", ["check base.qcow2", "measure -O qcow2 base.qcow2", "info base.qcow2", "info bits"])
def test_json_is_the_same_text(directory: Path, words: str) -> None:
    """The order of names too: it is that of QEMU's hash table."""
    run("qemu-img", "create", "-q", "-f", "qcow2", "bits", "8M")
    run("qemu-img", "bitmap", "--add", "bits", "one")
    run("qemu-img", "snapshot", "-c", "one", "bits")
    assert_equal(*words.split(), "--output=json")
