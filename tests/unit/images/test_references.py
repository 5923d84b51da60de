# SPDX-License-Identifier: MIT
"""References: what an image names is opened only where the caller allows it, and never outside of that."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pydiskimg.cli import main
from pydiskimg.errors import DiskImageError, InvalidImageError, StorageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.references import allow_references
from pydiskimg.protocols import read_bytes
from tests.fixtures.checkout import ROOT
from tests.fixtures.qcow2_images import Craft, assert_contract, extension

SIZE = 64 << 9
SECRET = b"secret".ljust(4096, b".")
BASE = b"base".ljust(4096, b"-")


def overlay(name: bytes, backing_format: bytes | None = b"raw") -> bytes:
    """An empty image over the backing file of this name."""
    extensions = extension(layout.EXTENSION_BACKING_FORMAT, backing_format) if backing_format is not None else b""
    extensions += bytes(8)
    header = {"backing_file_offset": 112 + len(extensions), "backing_file_size": len(name)}
    return Craft(cluster_bits=12, size=SIZE, extensions=extensions + name, header=header).build()


def on_data_file(name: bytes) -> bytes:
    extensions = extension(layout.EXTENSION_DATA_FILE, name) + bytes(8)
    craft = Craft(size=SIZE, l2=[[1 << 63, 1 << 63 | 512]], extensions=extensions, header={"incompatible_features": 4})
    return craft.build()


@pytest.fixture(autouse=True)
def _no_descriptor_leaks() -> Iterator[None]:
    before = os.listdir("/proc/self/fd")
    yield
    assert os.listdir("/proc/self/fd") == before


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two directories: allowed, with a base in it, and outside, with a secret."""
    allowed, outside = tmp_path / "allowed", tmp_path / "outside"
    (allowed / "sub").mkdir(parents=True)
    outside.mkdir()
    (allowed / "base.raw").write_bytes(BASE)
    (outside / "secret").write_bytes(SECRET)
    (outside / "dir").mkdir()
    (allowed / "link.raw").symlink_to("sub/../base.raw")
    (allowed / "absolute link").symlink_to(allowed / "base.raw")
    (allowed / "bad link").symlink_to("../outside/secret")
    (allowed / "bad absolute").symlink_to(outside / "secret")
    (allowed / "bad directory").symlink_to("../outside")
    return tmp_path


def read(path: Path, allowed: Path) -> bytes:
    with allow_references(allowed) as references:
        source = open_image(path, references=references)
    with source:
        return read_bytes(source, 0, source.size)


def refused(path: Path, allowed: Path | None) -> DiskImageError:
    with pytest.raises(DiskImageError) as caught:
        open_image(path) if allowed is None else read(path, allowed)
    assert str(caught.value).isprintable()
    return caught.value


FILES = [b"/etc/shadow", b"../x", b"base.raw", b"sub/fifo", b"/dev/zero", b"/proc/self/mem", b"no such file"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("make", [overlay, on_data_file])
def test_denied_without_a_policy(make: object, name: bytes, tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    os.mkfifo(tree / "allowed" / "sub" / "fifo")
    path.write_bytes(make(name))  # type: ignore[operator]
    would = os.path.join(tree / "allowed", name.decode())
    role = "backing file" if make is overlay else "data file"
    error = refused(path, None)
    assert isinstance(error, UnsupportedImageError)
    shown = f"'{would[:100]}'" + ("..." if len(would) > 100 else "")
    assert str(error) == (
        f"{path}: names the {role} '{name.decode()}', which would be the file {shown}; it was not opened, since "
        "files that an image names are opened only below a directory that is allowed: --allow-references DIR, or "
        "references=allow_references(DIR)"
    )


PROTOCOLS = [
    (b'json:{"driver":"file","filename":"/etc/shadow"}', "json"),
    (b"nbd://192.0.2.1/export", "nbd"),
    (b"nbd:unix:/run/x", "nbd"),
    (b"file:base.raw", "file"),
    (b"file:///etc/shadow", "file"),
    (b"host_device:/dev/sda", "host_device"),
    (b"fat:rw:/etc", "fat"),
    (b"base:raw", "base"),
    (b":x", ""),
]


@pytest.mark.parametrize("allow", [True, False])
@pytest.mark.parametrize(("name", "protocol"), PROTOCOLS)
@pytest.mark.parametrize("make", [overlay, on_data_file])
def test_protocols_are_never_opened(make: object, name: bytes, protocol: str, allow: bool, tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    path.write_bytes(make(name))  # type: ignore[operator]
    error = refused(path, tree / "allowed" if allow else None)
    assert isinstance(error, UnsupportedImageError)
    assert f"would be opened by the protocol '{protocol}'; nothing was opened, since only plain names" in str(error)


def test_a_colon_after_a_slash_is_no_protocol(tree: Path) -> None:
    (tree / "allowed" / "a:b").write_bytes(BASE)
    (tree / "allowed" / "image").write_bytes(overlay(b"./a:b"))
    assert read(tree / "allowed" / "image", tree / "allowed") == BASE.ljust(SIZE, b"\0")


@pytest.mark.parametrize("name", [b"base.raw\0", b"base\n.raw", b"\xff\xfe", b"\x1b[2J", b"\xc2\x85x"])
@pytest.mark.parametrize("allow", [True, False])
def test_names_that_are_no_text(name: bytes, allow: bool, tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    path.write_bytes(overlay(name))
    error = refused(path, tree / "allowed" if allow else None)
    assert "which is not printable UTF-8 text; nothing was opened" in str(error)


def test_long_names(tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    path.write_bytes(overlay(b"./" * 507 + b"base.raw"))
    assert read(path, tree / "allowed") == BASE.ljust(SIZE, b"\0")
    extensions = extension(layout.EXTENSION_DATA_FILE, b"x" * 1024) + bytes(8)
    craft = Craft(cluster_bits=12, extensions=extensions, header={"incompatible_features": 4})
    path.write_bytes(craft.build())
    assert "whose name has 1024 bytes; nothing was opened, at most 1023" in str(refused(path, tree / "allowed"))


ALLOWED = [
    "base.raw",
    "./base.raw",
    "sub/../base.raw",
    ".//base.raw",
    "link.raw",
    "absolute link",
    "../allowed/base.raw",
]


@pytest.mark.parametrize("name", ALLOWED)
def test_allowed(name: str, tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    path.write_bytes(overlay(name.encode()))
    with allow_references(tree / "allowed") as references:
        source = open_image(path, references=references)
    with source:
        assert read_bytes(source, 0, SIZE) == BASE.ljust(SIZE, b"\0")
        assert assert_contract(source) == [Extent(0, 4096, Kind.DATA), Extent(4096, SIZE - 4096, Kind.HOLE)]
    source.close()


def test_absolute_names_below_the_directory(tree: Path) -> None:
    path = tree / "outside" / "image.qcow2"
    path.write_bytes(overlay(os.fsencode(tree / "allowed" / "base.raw")))
    assert read(path, tree / "allowed") == BASE.ljust(SIZE, b"\0")
    path.write_bytes(overlay(os.fsencode(tree / "allowed" / "sub" / ".." / "base.raw")))
    assert read(path, tree / "allowed") == BASE.ljust(SIZE, b"\0")


OUTSIDE = [
    "../outside/secret",
    "sub/../../outside/secret",
    "bad link",
    "bad absolute",
    "bad directory/secret",
    "bad directory/../allowed/base.raw",
    "/etc/hostname",
    "/proc/self/root/etc/hostname",
    "..",
    ".",
    "/",
    "../../../../../../../../../../etc/hostname",
]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("make", [overlay, on_data_file])
def test_what_leads_out(make: object, name: str, tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    path.write_bytes(make(name.encode()))  # type: ignore[operator]
    error = refused(path, tree / "allowed")
    assert isinstance(error, UnsupportedImageError)
    assert "it was not opened, since that is not below the directory that is allowed, " in str(error)


def test_absolute_names_that_climb_out(tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    path.write_bytes(overlay(os.fsencode(tree / "allowed") + b"/../outside/secret"))
    assert "not below the directory" in str(refused(path, tree / "allowed"))
    path.write_bytes(overlay(os.fsencode(tree / "allowedx" / "base.raw")))
    assert "not below the directory" in str(refused(path, tree / "allowed"))


def test_magic_links_are_not_followed(tree: Path) -> None:
    with open("/etc/hostname", "rb") as file:
        path = tree / "image.qcow2"
        path.write_bytes(overlay(b"/proc/self/fd/%d" % file.fileno()))
        error = refused(path, Path("/proc"))
    assert isinstance(error, StorageError)
    assert error.errno == errno.ELOOP


def test_only_regular_files(tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    os.mkfifo(tree / "allowed" / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(tree / "allowed")
        try:
            listener.bind("socket")
        finally:
            os.chdir(here)
        for name in (b"fifo", b"sub", b"socket"):
            path.write_bytes(overlay(name))
            assert "is not a regular file; it was not opened" in str(refused(path, tree / "allowed"))
    path.write_bytes(overlay(b"/dev/zero"))
    assert "is not a regular file; it was not opened" in str(refused(path, Path("/dev")))


def test_a_file_that_is_missing(tree: Path) -> None:
    path = tree / "allowed" / "image.qcow2"
    path.write_bytes(overlay(b"missing"))
    error = refused(path, tree / "allowed")
    assert isinstance(error, StorageError)
    assert (error.errno, error.filename) == (errno.ENOENT, str(tree / "allowed" / "missing"))
    assert f"cannot open the backing file of {path}: No such file or directory" in str(error)


def test_an_image_outside_of_the_directory(tree: Path) -> None:
    path = tree / "outside" / "image.qcow2"
    path.write_bytes(overlay(b"../allowed/base.raw"))
    assert read(path, tree / "allowed") == BASE.ljust(SIZE, b"\0")
    path.write_bytes(overlay(b"secret"))
    assert "not below the directory" in str(refused(path, tree / "allowed"))
    path.write_bytes(overlay(b"dir/../../allowed/base.raw"))
    assert "not below the directory" in str(refused(path, tree / "allowed"))


def test_paths_through_symlinks_and_the_current_directory(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "allowed" / "sub" / "image.qcow2").write_bytes(overlay(b"../base.raw"))
    (tree / "to sub").symlink_to("allowed/sub")
    (tree / "to allowed").symlink_to("allowed")
    assert read(tree / "to sub" / "image.qcow2", tree / "to allowed") == BASE.ljust(SIZE, b"\0")
    monkeypatch.chdir(tree / "allowed" / "sub")
    assert read(Path("image.qcow2"), Path("..")) == BASE.ljust(SIZE, b"\0")
    assert "not below the directory" in str(refused(Path("image.qcow2"), Path()))


def test_names_in_a_chain_begin_where_the_file_lies(tree: Path) -> None:
    (tree / "allowed" / "sub" / "middle.qcow2").write_bytes(overlay(b"../link.raw"))
    top = tree / "outside" / "image.qcow2"
    top.write_bytes(overlay(b"../allowed/sub/middle.qcow2", b"qcow2"))
    assert read(top, tree / "allowed") == BASE.ljust(SIZE, b"\0")
    assert "not below the directory" in str(refused(top, tree / "allowed" / "sub"))


def test_no_file_stands_on_itself(tree: Path) -> None:
    top, other = tree / "allowed" / "top", tree / "allowed" / "other"
    top.write_bytes(overlay(b"top", b"qcow2"))
    assert isinstance(error := refused(top, tree / "allowed"), InvalidImageError)
    assert f"which is {top} again; an image cannot be its own backing file" in str(error)
    top.write_bytes(overlay(b"other", b"qcow2"))
    other.write_bytes(overlay(b"hard", b"qcow2"))
    os.link(top, tree / "allowed" / "hard")
    assert f"which is {top} again; an image cannot be its own backing file" in str(refused(top, tree / "allowed"))
    top.write_bytes(on_data_file(b"hard"))
    assert "an image cannot be its own backing file" in str(refused(top, tree / "allowed"))


def test_a_chain_of_32_backing_files(tree: Path) -> None:
    directory = tree / "allowed"
    for number in range(33):
        (directory / f"{number}").write_bytes(overlay(b"%d" % (number + 1), b"qcow2"))
    (directory / "33").write_bytes(overlay(b"base.raw"))
    assert read(directory / "2", directory) == BASE.ljust(SIZE, b"\0")
    error = refused(directory / "1", directory)
    assert isinstance(error, UnsupportedImageError)
    assert "is the end of a chain of 32 backing files and names one more" in str(error)


def test_backing_formats(tree: Path) -> None:
    directory = tree / "allowed"
    image, base = directory / "image", directory / "base.raw"
    for backing_format in (None, b""):
        image.write_bytes(overlay(b"base.raw", backing_format))
        assert read(image, directory) == BASE.ljust(SIZE, b"\0")
    looks_like_qcow2 = overlay(b"../outside/secret")
    for content, what in ((looks_like_qcow2, "qcow2"), (b"KDMV" + bytes(600), "another format")):
        base.write_bytes(content)
        image.write_bytes(overlay(b"base.raw", None))
        error = refused(image, directory)
        assert isinstance(error, UnsupportedImageError)
        assert re.search(rf"does not say which format .*looks like {what}, and may be a raw disk that a", str(error))
        for stated in (b"raw", b"file"):  # the protocol of files, which QEMU takes for a format
            image.write_bytes(overlay(b"base.raw", stated))
            assert read(image, directory) == content.ljust(SIZE, b"\0")[:SIZE]
    for other in (b"vmdk", b"host_device", b"RAW", b"\x1b[2J", b"x" * 400):
        image.write_bytes(overlay(b"base.raw", other))
        assert "; only raw and qcow2 are read" in str(refused(image, directory))
    base.write_bytes(BASE)
    image.write_bytes(overlay(b"base.raw", b"qcow2"))
    assert "not a qcow2 image: it starts with 62 61 73 65," in str(refused(image, directory))


def test_data_files(tree: Path) -> None:
    directory = tree / "allowed"
    image = directory / "image"
    image.write_bytes(on_data_file(b"base.raw"))
    assert read(image, directory) == BASE[:1024].ljust(SIZE, b"\0")
    os.truncate(directory / "base.raw", 1000)
    error = refused(image, directory)
    assert isinstance(error, InvalidImageError)
    assert f"ends beyond the end of its data file {directory}/base.raw (0x3e8)" in str(error)
    os.truncate(directory / "base.raw", 512)
    assert "cluster offset 0x200 lies beyond the end of the external data file (0x200)" in str(
        refused(image, directory)
    )


def test_a_data_file_has_no_compressed_clusters(tree: Path) -> None:
    extensions = extension(layout.EXTENSION_DATA_FILE, b"base.raw") + bytes(8)
    craft = Craft(l2=[[1 << 62]], extensions=extensions, header={"incompatible_features": 4})
    (tree / "allowed" / "image").write_bytes(craft.build())
    error = refused(tree / "allowed" / "image", tree / "allowed")
    assert "is a compressed cluster, and the image has an external data file" in str(error)


def test_the_policy_ends_with_its_block(tree: Path) -> None:
    image = tree / "allowed" / "image"
    image.write_bytes(overlay(b"base.raw"))
    with allow_references(tree / "allowed") as references:
        pass
    references.close()
    with pytest.raises(StorageError, match="Bad file descriptor"):
        open_image(image, references=references)


def test_a_directory_that_is_none(tree: Path) -> None:
    for name, number in (("missing", errno.ENOENT), ("allowed/base.raw", errno.ENOTDIR), ("a\0b", errno.EINVAL)):
        with pytest.raises(StorageError) as caught, allow_references(os.path.join(tree, name)):
            pass
        assert caught.value.errno == number


def test_an_allowed_directory_by_its_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link"
    link.symlink_to("real")
    (link / "base.raw").write_bytes(BASE)
    (link / "image").write_bytes(overlay(os.fsencode(link / "base.raw")))
    with allow_references(link) as policy, open_image(link / "image", references=policy) as image:
        assert read_bytes(image, 0, 4) == b"base"


def test_a_current_directory_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StorageError, match="directory that images may name files of"), allow_references("."):
        pass


def test_a_backing_chain_is_described_as_it_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A backing file without a stated format that looks like qcow2 is not taken for one."""
    (tmp_path / "base").write_bytes(Craft(cluster_bits=12).build())
    (tmp_path / "image").write_bytes(overlay(b"base", None))
    assert main(["info", "--backing-chain", "--allow-references", str(tmp_path), str(tmp_path / "image")]) == 1
    assert "does not say which format" in capsys.readouterr().err


def test_names_that_the_locale_has_not(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(overlay("\u65e5".encode()))
    command = [sys.executable, "-X", "utf8", "-m", "pydiskimg", "info", str(tmp_path / "image")]
    done = subprocess.run(command, cwd=ROOT, env={"PYTHONIOENCODING": "latin-1"}, capture_output=True, check=True)
    assert b"\\u65e5" in done.stdout
