# SPDX-License-Identifier: MIT
"""open_image(): paths that cannot be opened, formats by content and by name, and which descriptors are closed."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from pydiskimg.errors import InvalidImageError, StorageError, UnsupportedImageError
from pydiskimg.images import FORMATS
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.layout import MAGIC
from pydiskimg.protocols import ImageSource, read_bytes
from tests.fixtures.checkout import ROOT
from tests.fixtures.qcow2_images import Craft


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_formats(tmp_path: Path) -> None:
    path = tmp_path / "an image.img"
    path.write_bytes(Craft().build())
    with open_image(path) as source:
        assert (source.format, source.size, source.name) == ("qcow2", 64 << 9, str(path))
    with open_image(str(path), format="raw") as source:
        assert (source.format, source.size) == ("raw", 1536)
        assert read_bytes(source, 0, 1536) == Craft().build()
    path.write_bytes(b"")
    with open_image(path) as source:
        assert (source.format, source.size, list(source.extents())) == ("raw", 0, [])
    with pytest.raises(InvalidImageError, match="the file ends at byte 0, inside the first 72 bytes"):
        open_image(path, format="qcow2")
    path.write_bytes(b"no magic".ljust(512))
    with pytest.raises(
        InvalidImageError, match=r"an image\.img: not a qcow2 image: it starts with 6e 6f 20 6d, expected 51"
    ):
        open_image(path, format="qcow2")
    with pytest.raises(
        UnsupportedImageError, match=r"the format 'vmdk' is not known; the ones that are read: raw, qcow2$"
    ):
        open_image(path, format="vmdk")


def test_qcow2_is_known_by_the_magic_of_its_header() -> None:
    assert FORMATS["qcow2"].magic == MAGIC


def test_paths_that_are_no_image(tmp_path: Path) -> None:
    before = open_descriptors()
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "file").write_bytes(b"x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        for name, number, sentence in [
            ("missing", errno.ENOENT, "cannot open the image: No such file or directory"),
            ("dangling", errno.ENOENT, "cannot open the image: No such file or directory"),
            ("loop", errno.ELOOP, "cannot open the image: Too many levels of symbolic links"),
            ("file/x", errno.ENOTDIR, "cannot open the image: Not a directory"),
            ("a\0b", errno.EINVAL, "cannot open the image: a path cannot have a NUL byte in it"),
            (".", errno.EISDIR, "is a directory; an image is a regular file or a block device"),
            ("fifo", errno.EINVAL, "is a pipe; an image is a regular file or a block device"),
            ("socket", errno.EINVAL, "is a socket; an image is a regular file or a block device"),
            ("/dev/zero", errno.EINVAL, "is a character device; an image is a regular file or a block device"),
        ]:
            path = os.path.join(tmp_path, name)
            with pytest.raises(StorageError) as caught:
                open_image(path)
            assert (str(caught.value), caught.value.errno, caught.value.filename) == (
                f"{path}: {sentence}".replace("\0", "\\x00"),
                number,
                path,
            )
    assert open_descriptors() == before


def test_permission(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "a").chmod(0)
    user = os.geteuid()
    if user == 0:  # root may read everything, nobody may not
        os.seteuid(65534)
    try:
        with pytest.raises(StorageError, match="/a: cannot open the image: Permission denied") as caught:
            open_image(tmp_path / "a")
        assert caught.value.errno == errno.EACCES
    finally:
        os.seteuid(user)


def test_nothing_stays_open(tmp_path: Path) -> None:
    path = tmp_path / "a"
    before = open_descriptors()
    for content in (Craft(), Craft(version=4), Craft(header={"l1_table_offset": 5})):
        path.write_bytes(content.build())
        try:
            source: ImageSource = open_image(path)
        except (InvalidImageError, UnsupportedImageError):
            pass
        else:
            assert open_descriptors() == before + 1
            source.close()
            source.close()
        assert open_descriptors() == before


MAGICS = [
    (b"QFI\xfb\0\0\0\x01", "a qcow image of version 1", "qemu-img convert"),
    (b"QED\0", "a QED image", "qemu-img convert"),
    (b"KDMV", "a VMDK image", "qemu-img convert"),
    (b"COWD", "a VMDK image", "qemu-img convert"),
    (b"# Disk DescriptorFile\n", "the text descriptor of a VMDK image", "qemu-img convert"),
    (bytes(64) + b"\x7f\x10\xda\xbe", "a VDI image", "qemu-img convert"),
    (b"conectix", "a VHD image", "qemu-img convert"),
    (b"vhdxfile", "a VHDX image", "qemu-img convert"),
    (b"\x1f\x8b\x08", "compressed with gzip", "gzip -d"),
    (b"\xfd7zXZ\0", "compressed with xz", "xz -d"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -d"),
    (b"BZh91AY&SY", "compressed with bzip2", "bzip2 -d"),
]


@pytest.mark.parametrize(("magic", "what", "advice"), MAGICS)
@pytest.mark.parametrize("length", [0, 4096])
def test_other_formats_are_named(tmp_path: Path, magic: bytes, what: str, advice: str, length: int) -> None:
    path = tmp_path / "a"
    path.write_bytes(magic.ljust(length, b"\0"))
    with pytest.raises(UnsupportedImageError) as caught:
        open_image(path)
    assert str(caught.value).startswith(f"{path}: is {what}")
    assert advice in str(caught.value)
    with open_image(path, format="raw") as source:
        assert source.format == "raw"


@pytest.mark.parametrize(
    "content", [b"", b"Q", b"QFI", b"BZh9", b"\x1f\x8b", bytes(68) + b"\x7f", b"\xeb\x63\x90".ljust(512)]
)
def test_whatever_else_is_raw(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with open_image(tmp_path / "a") as source:
        assert (source.format, source.size) == ("raw", len(content))


SCRIPT = """
import sys
from pydiskimg.errors import DiskImageError
from pydiskimg.images.open import open_image
try:
    print(open_image(sys.argv[1]).size)
except DiskImageError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


def test_names_of_any_bytes_in_an_empty_environment(tmp_path: Path) -> None:
    directory = os.fsencode(tmp_path) + b"/\xff\xfe \xc3\xa9"
    os.mkdir(directory)
    path = directory + b"/disk 1.img"
    for content, status in ((Craft(), 0), (Craft(version=4), 1)):
        with open(path, "wb") as file:
            file.write(content.build())
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, path],
            env={"LC_ALL": "C", "PATH": "/usr/bin:/bin"},
            cwd=ROOT,
            capture_output=True,
            check=False,
        )
        assert (done.returncode, b"Traceback" in done.stderr) == (status, False), done.stderr
        assert done.stdout == (b"32768\n" if not status else b"")
        assert done.stderr.count(b"\n") == status
