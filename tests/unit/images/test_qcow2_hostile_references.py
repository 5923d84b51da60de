# SPDX-License-Identifier: MIT
"""Images that name other files: nothing is opened that is not allowed, whatever the name."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.errors import DiskImageError, StorageError, UnsupportedImageError
from pydiskimg.extents import Kind
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.reader import Qcow2Source
from pydiskimg.images.raw import RawSource
from pydiskimg.images.references import allow_references
from pydiskimg.protocols import read_bytes
from tests.fixtures.hostile_images import one_cluster
from tests.fixtures.hostile_references import ALLOWED, DENIED, IMAGE, SECRET, SIZE, NamingLie, naming
from tests.fixtures.limits import assert_sentence, limits

# What is opened: an audit hook sees every open() of Python's own, and inotify whatever else touches the secret.

_opened: list[str] | None = None


def _audit(event: str, arguments: tuple[object, ...]) -> None:
    if _opened is not None and (
        event == "open" or event.startswith(("socket.", "subprocess.", "os.exec", "os.system"))
    ):
        _opened.append(f"{arguments[0]!s}" if event == "open" else event)


sys.addaudithook(_audit)


@contextmanager
def record_opened() -> Iterator[list[str]]:
    """Give the list of the files that are opened inside, modules of Python apart, and of what else reaches out."""
    global _opened  # noqa: PLW0603 - an audit hook cannot be taken back
    found: list[str] = []
    _opened = found
    try:
        yield found
    finally:
        _opened = None
        found[:] = [name for name in found if not name.endswith((".py", ".pyc", ".so"))]


_IN_ACCESS, _IN_OPEN, _EVENT = 0x1, 0x20, struct.Struct("iIII")


@contextmanager
def watch(path: Path) -> Iterator[Callable[[], bool]]:
    """Give a function that tells whether the file was opened or read since; inotify(7)."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    assert fd >= 0, os.strerror(ctypes.get_errno())
    assert libc.inotify_add_watch(fd, os.fsencode(path), _IN_ACCESS | _IN_OPEN) >= 0

    def touched() -> bool:
        try:
            return len(os.read(fd, 4096)) >= _EVENT.size
        except BlockingIOError:
            return False

    try:
        yield touched
    finally:
        os.close(fd)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    (tmp_path / SECRET).write_bytes(b"s" * SIZE)
    directory = tmp_path / "images"
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    "lie", [*DENIED, *ALLOWED], ids=lambda lie: f"{'allowed' if lie.allowed else 'denied'} {lie.claim}"
)
def test_what_an_image_may_not_name_is_not_opened(lie: NamingLie, images: Path) -> None:
    lie.make(images)
    policy = allow_references(images) if lie.allowed else nullcontext()
    with policy as references, watch(images.parent / SECRET) as touched, limits(), record_opened() as opened:
        with pytest.raises(DiskImageError) as caught:
            open_image(images / IMAGE, references=references).close()
        assert not touched()
    text = str(caught.value)
    assert lie.says.replace("{dir}", str(images)) in text
    assert_sentence(text.replace(str(images), ""))
    below = [name for name in opened if lie.allowed and name.startswith("/proc/self/fd/")]
    assert [name for name in opened if name not in below] == [str(images / IMAGE)]
    assert len(below) <= 32


def test_the_watch_sees_what_is_opened(images: Path) -> None:
    secret = images.parent / SECRET
    with watch(secret) as touched, record_opened() as opened:
        assert not touched()
        secret.read_bytes()
        assert touched()
    assert opened == [str(secret)]


@pytest.mark.parametrize("lie", DENIED, ids=lambda lie: lie.claim)
def test_nobody_is_allowed_by_being_in_the_same_directory(lie: NamingLie, images: Path) -> None:
    """Whatever names lie around, without a policy the outcome is the same."""
    for name in ("base", "nbd:unix:", "secret"):
        (images / name).write_bytes(bytes(SIZE))
    lie.make(images)
    with record_opened() as opened, pytest.raises(DiskImageError):
        open_image(images / IMAGE)
    assert opened == [str(images / IMAGE)]


def test_a_chain_of_32_is_read(images: Path) -> None:
    for number in range(32):
        name = str(number) if number else IMAGE
        (images / name).write_bytes(naming(backing=b"%d" % (number + 1), backing_format=b"qcow2"))
    (images / "32").write_bytes(one_cluster(1 << 63 | 0x800, b"end".ljust(512)))
    with allow_references(images) as references, open_image(images / IMAGE, references=references) as source:
        assert read_bytes(source, 0, 3) == b"end"
        assert [extent.kind for extent in source.extents()] == [Kind.DATA]


@pytest.fixture(scope="module")
def maze(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """images/ with directories and symlinks that lead within it, out of it, and back."""
    root = tmp_path_factory.mktemp("maze")
    images = root / "images"
    (images / "sub" / "deep").mkdir(parents=True)
    (root / "other").mkdir()
    for path in (root / "secret", root / "other" / "disk", images / "disk", images / "sub" / "disk"):
        path.write_bytes(bytes(SIZE))
    for name, target in (
        ("up", ".."),
        ("out", "../other"),
        ("root", "/"),
        ("self", "."),
        ("back", "../images"),
        ("sub/deep/up", "../.."),
        ("sub/out", "../../secret"),
        ("sub/in", "deep/up/disk"),
        ("absolute", str(images / "disk")),
        ("absolute-sub", f"{images}/./sub/"),
        ("absolute-up", f"{images}/sub/../.."),
        ("absolute-out", f"{images}/out/disk"),
        ("absolute-self", f"{images}/self/absolute-sub/in"),
        ("to-absolute", "sub/to-absolute"),
        ("sub/to-absolute", "../absolute-self"),
        ("absolute-loop", f"{images}/absolute-loop"),
        ("proc", "/proc/self/root"),
    ):
        (images / name).symlink_to(target)
    return root


_STEPS = (
    "..",
    ".",
    "",
    "sub",
    "deep",
    "up",
    "out",
    "root",
    "self",
    "back",
    "in",
    "absolute",
    "absolute-sub",
    "absolute-up",
    "absolute-out",
    "absolute-self",
    "to-absolute",
    "absolute-loop",
    "proc",
    "images",
    "other",
)


@settings(max_examples=400)
@given(
    steps=st.lists(st.sampled_from((*_STEPS, "disk", "secret", "disk", "image.qcow2")), min_size=1, max_size=7),
    absolute=st.booleans(),
    allowed=st.sampled_from(("images", "images/sub", ".", "images/self/sub/..")),
)
def test_no_name_leads_out_of_the_allowed_directory(maze: Path, steps: list[str], absolute: bool, allowed: str) -> None:
    name = "/".join(steps)
    named = f"{maze}/images/{name}" if absolute else name or "."
    image = maze / "images" / IMAGE
    image.write_bytes(naming(backing=named.encode()))
    real = os.path.realpath(os.path.join(maze / "images", named))
    with allow_references(maze / allowed) as references:
        try:
            source = open_image(image, references=references)
        except DiskImageError as error:
            assert_sentence(str(error).replace(str(maze), ""))
            return
        with source:
            assert os.path.isfile(real)
            assert real.startswith(f"{os.path.realpath(maze / allowed)}/")
            assert isinstance(source, Qcow2Source)
            assert isinstance(source.backing, RawSource)
            assert source.backing.identity == (os.stat(real).st_dev, os.stat(real).st_ino)


def test_absolute_symlinks_are_followed_as_long_as_they_stay_below(images: Path) -> None:
    """Also where the directory is allowed by a path that has a symlink in it, and links are written that way."""
    (images / "real").mkdir()
    (images / "real" / "disk").write_bytes(b"d" * SIZE)
    alias = images.parent / "alias"
    alias.symlink_to(images)
    (images / "one").symlink_to(alias / "real" / "disk")
    (images / "two").symlink_to(images / "real" / "disk")
    (images / "three").symlink_to(images.parent / SECRET)
    for name, allowed, reads in (
        ("one", alias, b"d"),
        ("two", alias, b"d"),
        ("two", images, b"d"),
        ("one", images, None),
        ("three", images, None),
        ("two", images / "real", None),
    ):
        (images / IMAGE).write_bytes(naming(backing=name.encode()))
        with allow_references(allowed) as references:
            if reads is None:
                with pytest.raises(UnsupportedImageError, match="is not below the directory that is allowed"):
                    open_image(images / IMAGE, references=references)
                continue
            with open_image(images / IMAGE, references=references) as source:
                assert read_bytes(source, 0, 1) == reads


def test_absolute_symlinks_in_a_circle_end(images: Path) -> None:
    (images / "one").symlink_to(images / "two")
    (images / "two").symlink_to(images / "one")
    (images / IMAGE).write_bytes(naming(backing=b"one"))
    with (
        allow_references(images) as references,
        pytest.raises(StorageError, match="Too many levels of symbolic links"),
    ):
        open_image(images / IMAGE, references=references)


# Polyglots: with the format raw, data of the guest is never taken for an image.


def test_a_raw_disk_that_begins_like_qcow2_is_raw(images: Path) -> None:
    disk = images / "disk"
    disk.write_bytes(naming(backing=b"../secret"))
    content = disk.read_bytes()
    with record_opened() as opened, open_image(disk, format="raw") as source:
        assert read_bytes(source, 0, source.size) == content
    assert opened == [str(disk)]


def test_a_raw_backing_file_that_begins_like_qcow2_is_raw(images: Path) -> None:
    guest = naming(backing=b"../secret")
    (images / "base").write_bytes(guest)
    (images / IMAGE).write_bytes(naming(backing=b"base", backing_format=b"raw"))
    with allow_references(images) as references, open_image(images / IMAGE, references=references) as source:
        assert read_bytes(source, 0, SIZE) == guest[:SIZE]


def test_what_is_allowed_is_opened(maze: Path) -> None:
    image = maze / "images" / IMAGE
    absolute = (
        "absolute",
        "absolute-sub/disk",
        "absolute-self",
        "to-absolute",
        "sub/to-absolute",
        "absolute-up/secret",
    )
    for name in (*absolute, "disk", "sub/disk", "self/disk", "./sub/in", "up/images/disk", f"{maze}/images/disk"):
        image.write_bytes(naming(backing=name.encode()))
        with allow_references(maze) as references, open_image(image, references=references) as source:
            assert source.size == SIZE
