# SPDX-License-Identifier: MIT
"""Every subcommand of qemu-img ends with its exit status, on images of all kinds and when it is called wrongly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.fixtures.both_programs import by_pydiskimg, by_qemu_img
from tests.fixtures.qcow2_images import run

pytestmark = pytest.mark.oracle

# Below --allow-references DIR, which qemu-img does not have, the files are opened that an image names.
FOLLOWS = ("info --backing-chain", "map", "compare", "convert", "measure", "commit", "rebase", "resize")

IMAGES = (
    "base",
    "top",
    "raw",
    "cut",
    "dirty",
    "corrupt",
    "orphan",
    "snapped",
    "absent",
    "directory",
    "future",
    "empty",
)

ON_AN_IMAGE = (
    "info IMAGE",
    "info -f qcow2 IMAGE",
    "info --backing-chain IMAGE",
    "check IMAGE",
    "check -q --output=json IMAGE",
    "check -f qcow2 IMAGE",
    "map -f qcow2 IMAGE",
    "snapshot -l IMAGE",
    "snapshot -c new IMAGE",
    "snapshot -d one IMAGE",
    "snapshot -a one IMAGE",
    "convert IMAGE new",
    "convert -O qcow2 -c IMAGE new",
    "convert -n -f raw -O qcow2 raw IMAGE",
    "compare IMAGE base",
    "compare -s base IMAGE",
    "measure -O qcow2 IMAGE",
    "resize -f qcow2 IMAGE +1M",
    "resize -f qcow2 IMAGE -- -64k",
    "resize -f qcow2 --shrink IMAGE -- -64k",
    "commit IMAGE",
    "commit -d IMAGE",
    "rebase -b NONE IMAGE",
    "rebase -u -b NONE IMAGE",
    "rebase -u IMAGE",
    "create -f qcow2 -b IMAGE -F qcow2 new",
)

# Where both differ on purpose, as docs/commands.md says: our status and qemu-img's.
MEANT = {
    "dirty": (1, 0),  # QEMU repairs an image that was not closed when it opens it to write
    "orphan": (0, 1),  # some commands need no backing file, and do not miss it
}

WRONG = (
    "info",
    "info --nonsense base",
    "info -f nonsense base",
    "info --output=xml base",
    "info base top",
    "check",
    "check --nonsense base",
    "check --output=xml base",
    "check -r some base",
    "check -U -r all base",
    "map",
    "map -s x base",
    "map base top",
    "measure",
    "measure --size x",
    "measure --size 1M base",
    "measure -O nonsense --size 1M",
    "snapshot",
    "snapshot base",
    "snapshot -l -c x base",
    "resize",
    "resize base",
    "resize base x",
    "resize base 1M 2M",
    "resize -f raw --preallocation=nonsense raw 2M",
    "convert",
    "convert base",
    "convert -f nonsense base new",
    "convert -O nonsense base new",
    "convert -O qcow2 -o nonsense=1 base new",
    "convert -O qcow2 -o cluster_size=3 base new",
    "convert -m 17 base new",
    "convert -c base new",
    "convert -n base absent",
    "create",
    "create new",
    "create new x",
    "create new 1M 2M",
    "create -f nonsense new 1M",
    "create -f qcow2 -o nonsense=1 new 1M",
    "create -f qcow2 -o compat=0.10,lazy_refcounts=on new 1M",
    "create -f qcow2 -o refcount_bits=3 new 1M",
    "create -f qcow2 -o size=1M new 2M",
    "create -f qcow2 -b base new",
    "create -f qcow2 -b base -F raw -o preallocation=full new",
    "create -f qcow2 -F raw new 1M",
    "create -f raw -b base new 1M",
    "create absent/new 1M",
    "commit",
    "commit -b absent top",
    "rebase",
    "rebase base",
    "rebase -b absent -F raw top",
    "compare -f nonsense base base",
    "compare base absent",
)

CACHES = ("none", "off", "writeback", "writethrough", "directsync", "unsafe", "on", "OFF", "NONE")
CACHED = (
    "convert -t MODE base new",
    "convert -T MODE base new",
    "compare -T MODE base base",
    "check -T MODE base",
    "commit -t MODE top",
    "rebase -t MODE -b NONE top",
    "rebase -T MODE -b NONE top",
    "rebase -u -T MODE -b NONE top",
    "amend -t MODE -o compat=v3 base",
)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the images, each with its name."""
    directory = tmp_path_factory.mktemp("template")

    def create(name: str, *options: str) -> None:
        run("qemu-img", "create", "-q", "-f", "qcow2", *options, str(directory / name), "1M")

    for name in ("base", "snapped", "dirty", "corrupt", "future"):
        create(name)
        run("qemu-io", "-f", "qcow2", "-c", "write -P 7 64k 256k", str(directory / name))
    create("top", "-b", "base", "-F", "qcow2")
    create("orphan", "-u", "-b", "absent", "-F", "qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 100k 64k", str(directory / "top"))
    run("qemu-img", "snapshot", "-c", "one", str(directory / "snapped"))
    for name, bits in (("dirty", 1), ("corrupt", 2), ("future", 64)):
        data = bytearray((directory / name).read_bytes())
        data[79] = bits
        (directory / name).write_bytes(data)
    (directory / "cut").write_bytes((directory / "base").read_bytes()[:90])
    (directory / "raw").write_bytes(b"x" * 65536)
    (directory / "empty").touch()
    return directory


@pytest.fixture
def statuses(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    """A function that runs a command by both, each among fresh images, and returns both exit statuses."""

    def ask(line: str, image: str = "") -> tuple[int, int]:
        words = ["" if word == "NONE" else word for word in line.replace("IMAGE", image).split()]
        found = []
        for program in (by_pydiskimg, by_qemu_img):
            shutil.rmtree(tmp_path / "here", ignore_errors=True)
            (tmp_path / "here" / "directory").mkdir(parents=True)
            monkeypatch.chdir(tmp_path / "here")
            for path in template.iterdir():
                if path.name in ("base", *words):
                    shutil.copy(path, path.name)
            follows = program is by_pydiskimg and line.startswith(FOLLOWS)
            allowed = ["--allow-references", "."] if follows else []
            found.append(program(words[0], *allowed, *words[1:]).status)
        return found[0], found[1]

    return ask


@pytest.mark.parametrize("line", ON_AN_IMAGE)
def test_on_an_image(statuses: object, line: str) -> None:
    assert callable(statuses)
    different = {}
    for image in IMAGES:
        ours, theirs = statuses(line, image)
        if ours != theirs and (ours, theirs) != MEANT.get(image):
            different[image] = (ours, theirs)
    assert different == {}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage(statuses: object, line: str) -> None:
    assert callable(statuses)
    ours, theirs = statuses(line)
    assert ours == theirs


@pytest.mark.parametrize("mode", CACHES)
def test_cache_modes(statuses: object, mode: str) -> None:
    """The same ones are accepted by each option of each command; NONE is an empty word here."""
    assert callable(statuses)
    for line in CACHED:
        ours, theirs = statuses(line.replace("MODE", mode))
        assert ours == theirs, line


def test_wrong_usage_of_compare_does_not_say_that_images_differ(statuses: object) -> None:
    assert callable(statuses)
    assert statuses("compare base") == (2, 1)
