# SPDX-License-Identifier: MIT
"""check finds what qemu-img check finds: in images of every feature, sound ones and damaged ones."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import DiskImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.raw import open_raw
from tests.fixtures.qcow2_damage import SHAPES, Shape, damage, make
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

FIELDS = (
    "corruptions",
    "leaks",
    "image-end-offset",
    "total-clusters",
    "allocated-clusters",
    "compressed-clusters",
    "fragmented-clusters",
)
MUTATIONS = 16
CUTS = 8


def qemu_check(path: Path) -> tuple[int, dict[str, int] | None]:
    """Exit status and fields of qemu-img check; None when it did not complete."""
    command = ("qemu-img", "check", "-f", "qcow2", "--output=json", str(path))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 2, 3):
        return done.returncode, None
    found = json.loads(done.stdout)
    assert found["check-errors"] == 0
    return done.returncode, {name: found.get(name, 0) for name in FIELDS}


def our_check(path: Path) -> tuple[dict[str, int] | None, str]:
    """The fields of check_qcow2(), None when it did not complete, and what it said."""
    try:
        with open_raw(path) as file:
            result = check_qcow2(file)
    except DiskImageError as error:
        return None, str(error)
    if result.check_errors:
        return None, str(result.details)
    return {name: getattr(result, name.replace("-", "_")) for name in FIELDS}, str(result.details)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_counts_are_those_of_qemu(tmp_path: Path, shape: Shape) -> None:
    path = make(tmp_path, shape)
    status, theirs = qemu_check(path)
    ours, said = our_check(path)
    assert (status, theirs) == (0, ours), said

    data = path.read_bytes()
    for seed in range(MUTATIONS):
        path.write_bytes(damage(data, (shape.name, seed)))
        status, theirs = qemu_check(path)
        ours, said = our_check(path)
        assert ours == theirs, f"seed {seed}: {said}"


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_what_was_cut_off_is_counted_as_qemu_counts_it(tmp_path: Path, shape: Shape) -> None:
    """Tables that begin beyond the end of the file read as zeros."""
    path = make(tmp_path, shape)
    data, rng = path.read_bytes(), random.Random(shape.name)
    cluster_size = 1 << data[23]
    tables = [int.from_bytes(data[at : at + 8], "big") for at in (40, 48, 64)]
    for number in range(CUTS):
        cut = rng.choice(tables) or cluster_size if number < 4 else rng.randrange(cluster_size, len(data))
        path.write_bytes(data[: cut - cut % 512])
        _, theirs = qemu_check(path)
        ours, said = our_check(path)
        assert ours == theirs, f"cut at {cut}: {said}"


@pytest.mark.parametrize(
    ("shape", "place", "change"),
    [
        ("v3-64k", 32, b"\0\0\0\7"),  # an encryption method that nobody knows
        ("v3-64k", 32, b"\0\0\0\2"),  # LUKS, and no header of it
        ("v3-64k", 8, b"\0\0\0\0\0\2"),  # the name of a backing file of no bytes, behind the first cluster
        ("v3-64k", 88, b"\0\0\0\0\0\0\0\2"),  # a raw external data file, and no data file
        ("v2", 72, b"\0\0\0\0\xff\0\0\0"),  # an end of the header extensions that is longer than a cluster
        ("empty", 64, b"\0\0\0\0\0\0\x03\0"),  # no snapshots, and their table between two clusters
        ("bitmaps", "directory", (20, b"\0\0\0\x08")),  # extra data
        ("bitmaps", "directory", (16, b"\7")),  # a kind of bitmap that nobody knows
        ("bitmaps", "directory", (15, b"\x10")),  # a flag that nobody knows
        ("bitmaps", "directory", (17, b"\x06")),  # a granularity of 64 bytes
        ("bitmaps", "directory", (11, b"\x2f")),  # a table of another length
        ("bitmaps", "extension", (4, b"\0\0\1\0")),  # a reserved field
    ],
)
def test_an_image_that_qemu_does_not_open_is_not_clean(
    tmp_path: Path, shape: str, place: int | str, change: bytes | tuple[int, bytes]
) -> None:
    path = make(tmp_path, next(each for each in SHAPES if each.name == shape))
    data = bytearray(path.read_bytes())
    extension = data.find(layout.EXTENSION_BITMAPS.to_bytes(4, "big"), 104) + 8
    if isinstance(change, tuple):
        start = extension if place == "extension" else int.from_bytes(data[extension + 16 : extension + 24], "big")
        at, new = start + change[0], change[1]
    else:
        at, new = int(place), change
    data[at : at + len(new)] = new
    path.write_bytes(data)
    assert qemu_check(path) == (1, None)
    ours, said = our_check(path)
    assert ours is None, said
    assert main(["check", "-q", str(path)]) == 1


def test_encryption_header_and_its_clusters_are_known(tmp_path: Path) -> None:
    path = tmp_path / "luks.qcow2"
    secret = ("--object", "secret,id=s,data=x")
    options = "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=200"
    create = ("qemu-img", "create", "-q", "-f", "qcow2", *secret, "-o", options, str(path), "4M")
    # On a busy machine qemu-img's measurement of the CPU fails now and then.
    assert any(subprocess.run(create, capture_output=True, check=False).returncode == 0 for _ in range(20))
    opened = f"driver=qcow2,file.filename={path},encrypt.key-secret=s"
    run("qemu-io", *secret, "-c", "write 0 1M", "--image-opts", opened)
    theirs = json.loads(run("qemu-img", "check", *secret, "--output=json", "--image-opts", opened))
    ours, said = our_check(path)
    assert ours == {name: theirs.get(name, 0) for name in FIELDS}, said


def test_dirty_image_is_judged_as_it_is(tmp_path: Path) -> None:
    """Lazy refcounts that were not brought up to date: the writer was killed."""
    path = tmp_path / "dirty.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=on", str(path), "8M")
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write 0 1M", "-c", "flush", "-c", "sigraise 9", str(path)],
        capture_output=True,
        check=False,
    )
    assert path.read_bytes()[79] & 1, "the image is not dirty"
    status, theirs = qemu_check(path)
    ours, said = our_check(path)
    assert status == 2
    assert ours == theirs, said


def test_repaired_image_is_clean(tmp_path: Path) -> None:
    path = make(tmp_path, SHAPES[2])
    data = bytearray(path.read_bytes())
    data[0x20000:0x20040] = bytes(0x40)  # the reference counts of the first clusters
    path.write_bytes(data)
    found = our_check(path)[0]
    assert found is not None
    assert found["corruptions"] > 0
    assert found == qemu_check(path)[1]
    subprocess.run(["qemu-img", "check", "-q", "-r", "all", str(path)], capture_output=True, check=False)
    ours, said = our_check(path)
    assert ours is not None
    assert ours["corruptions"] == ours["leaks"] == 0, said


@pytest.mark.parametrize("seed", range(4))
def test_command_has_the_exit_status_and_the_fields_of_qemu_img(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    path = make(tmp_path, SHAPES[3])
    if seed:
        path.write_bytes(damage(path.read_bytes(), ("command", seed)))
    command = ("check", "--output=json", str(path))
    done = subprocess.run(("qemu-img", *command), capture_output=True, text=True, check=False)
    assert main(command) == done.returncode
    if done.returncode != 1:
        assert json.loads(capsys.readouterr().out) == json.loads(done.stdout)
