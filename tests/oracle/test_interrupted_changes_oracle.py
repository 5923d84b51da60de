# SPDX-License-Identifier: MIT
"""Each command that changes an image, interrupted at random moments: qemu-img check finds leaks at most, and the disk
shows what it did or what it will."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.images.open import open_image
from pydiskimg.images.references import allow_references
from pydiskimg.protocols import read_bytes
from tests.fixtures.interrupted_command import ATTEMPTS, SIGNALS, checked, duration, interrupted
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

MIB = 1 << 20
SIZE = 64 * MIB

COMMANDS = (
    "amend -o refcount_bits=64 image",
    "amend -o compat=0.10 old",
    "bitmap --merge b0 image b1",
    "bitmap --add -g 512 image new",
    "check -r all leaky",
    "check -r leaks leaky",
    "commit -d image",
    "commit image",
    "rebase -b other -F raw image",
    "rebase -b NONE image",
    "resize image +512M",
    "resize --preallocation=full old +8M",
    "resize --shrink old 20M",
    "snapshot -c new image",
    "snapshot -a one snapped",
    "snapshot -d one image",
)
NEW_FILES = (
    "convert -O qcow2 image new",
    "convert -O qcow2 -c image new",
    "dd -O qcow2 bs=1M if=image of=new",
    "create -f qcow2 -o preallocation=metadata new 512M",
)
FOLLOW = ("amend", "commit", "convert", "dd", "rebase", "resize")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with many small clusters: one with every feature, and three special ones."""
    directory = tmp_path_factory.mktemp("images")
    rng = random.Random(1)
    for name in ("base", "other"):
        (directory / name).write_bytes(rng.randbytes(4 * MIB))
    options = ["create", "-q", "-f", "qcow2", "-o", "cluster_size=4k"]
    for name, more in (("image", ["-b", "base", "-F", "raw"]), ("old", []), ("leaky", []), ("snapped", [])):
        path = str(directory / name)
        run("qemu-img", *options, *more, path, str(SIZE))
        write(path, rng)
        if name == "snapped":
            run("qemu-img", "snapshot", "-c", "one", path)
            write(path, rng)
        if name != "image":
            continue
        run("qemu-img", "bitmap", "--add", "-g", "4k", path, "b0")
        run("qemu-img", "snapshot", "-c", "one", path)
        write(path, rng)
        run("qemu-img", "bitmap", "--add", "-g", "4k", path, "b1")
        run("qemu-img", "snapshot", "-c", "two", path)
        write(path, rng)
    leak(directory / "leaky")
    return directory


def write(path: str, rng: random.Random) -> None:
    commands = [f"write -P {rng.randrange(1, 256)} {rng.randrange(SIZE - MIB) // 512 * 512} 40k" for _ in range(100)]
    run("qemu-io", "-f", "qcow2", *(part for command in commands for part in ("-c", command)), path)


def leak(path: Path) -> None:
    """Clusters after the last one count as used, and the header three times."""
    data = bytearray(path.read_bytes())
    table = int.from_bytes(data[48:56], "big")
    block = int.from_bytes(data[table : table + 8], "big")
    data[block : block + 2] = b"\0\3"
    free = [at for at in range(block, block + 4096, 2) if data[at : at + 2] == b"\0\0"][:200]
    for at in free:
        data[at : at + 2] = b"\0\1"
    path.write_bytes(data.ljust(2048 * 4096, b"\0") if free else data)


def shown(name: str) -> str:
    """A digest of what the disk shows, up to its first size."""
    with allow_references(".") as allowed, open_image(name, references=allowed) as image:
        return hashlib.sha1(read_bytes(image, 0, min(image.size, 20 * MIB)), usedforsecurity=False).hexdigest()


def words_of(command: str) -> list[str]:
    name, *words = command.split()
    allowed = ["--allow-references", "."] if name in FOLLOW else []
    return [name, *allowed, *("" if word == "NONE" else word for word in words)]


def fresh(made: Path) -> None:
    for name in ("image", "old", "leaky", "snapped", "base", "other"):
        shutil.copyfile(made / name, name)
    Path("new").unlink(missing_ok=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_an_image_shows_the_old_or_the_new(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, rng = words_of(command), random.Random(command)
    name = next(word for word in command.split() if word in ("image", "old", "leaky", "snapped"))
    fresh(made)
    old = shown(name)
    took = duration(words)
    right = {old, shown(name)}
    for number in SIGNALS * ATTEMPTS:
        fresh(made)
        interrupted(words, rng.random() * took, number)
        assert checked(name) in (0, 3), (command, number)
        assert shown(name) in right, (command, number)
        assert main(["check", "-q", "-r", "all", name]) == 0
        assert shown(name) in right, (command, number)


@pytest.mark.parametrize("command", NEW_FILES)
def test_a_new_file_is_there_when_it_is_complete(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words, rng = words_of(command), random.Random(command)
    fresh(made)
    took = duration(words)
    expected = shown("new")
    names = {*os.listdir()}
    for number in SIGNALS * ATTEMPTS:
        fresh(made)
        interrupted(words, rng.random() * took, number)
        assert {*os.listdir()} <= names, (command, number)
        if Path("new").exists():
            assert checked("new") == 0
            assert shown("new") == expected


@pytest.mark.parametrize("name", ["old", "image"])
def test_each_sector_is_the_old_or_the_new_one(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """convert -n writes in place: what is not written yet shows what it did."""
    monkeypatch.chdir(tmp_path)
    fresh(made)
    words = ["convert", "--allow-references", ".", "-n", "-f", "raw", "-O", "qcow2", "other", name]
    old, rng = whole(name), random.Random(name)
    took = duration(words)
    new = whole(name)
    for number in SIGNALS * ATTEMPTS:
        fresh(made)
        interrupted(words, rng.random() * took, number)
        assert checked(name) in (0, 3), number
        found = whole(name)
        assert all(
            found[at : at + 512] in (old[at : at + 512], new[at : at + 512]) for at in range(0, len(found), 512)
        ), number


def whole(name: str) -> bytes:
    with allow_references(".") as allowed, open_image(name, references=allowed) as image:
        return read_bytes(image, 0, image.size)
