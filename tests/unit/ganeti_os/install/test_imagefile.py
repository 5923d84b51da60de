# SPDX-License-Identifier: MIT
"""From IMAGE_NAME to a file, and the message if there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ganeti_os.install.image_file import ImageFile, MissingImageError, find_image, open_complete_image
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.errors import StorageError, UnsupportedImageError
from tests.fixtures.qcow2_images import Craft


def settings(directory: Path, name: str = "debian-12", kind: str = "qemu") -> Settings:
    values = {"IMAGE_DIR": str(directory), "IMAGE_NAME": name, "IMAGE_TYPE": kind, "ARCH": "x86_64"}
    return Settings.from_layers([Layer("test", values)])


@pytest.mark.parametrize(
    ("kind", "suffix", "is_archive", "opened_as"),
    [
        ("qemu", ".img", False, None),
        ("raw", ".raw", False, "raw"),
        ("qcow2", ".qcow2", False, "qcow2"),
        ("tarball", ".tar.gz", True, None),
    ],
)
def test_finds(tmp_path: Path, kind: str, suffix: str, is_archive: bool, opened_as: str | None) -> None:
    path = tmp_path / f"debian-12-x86_64{suffix}"
    path.touch()
    assert find_image(settings(tmp_path, kind=kind)) == ImageFile(str(path), is_archive, opened_as)


def missing(directory: Path, name: str = "debian-12") -> str:
    with pytest.raises(MissingImageError) as caught:
        find_image(settings(directory, name))
    return str(caught.value)


def test_lists_what_is_there_and_offers_the_nearest(tmp_path: Path) -> None:
    for name in ("debian-11-x86_64.img", "win dows.img", "zebra.tar.gz"):
        (tmp_path / name).touch()
    assert missing(tmp_path) == (
        f"{tmp_path}/debian-12-x86_64.img: the image does not exist, nor is there debian-12-amd64.img or "
        "debian-12-x64.img or debian-12; did you mean debian-11-x86_64.img? "
        f"{tmp_path} contains: debian-11-x86_64.img, 'win dows.img', zebra.tar.gz"
    )


def test_lists_twenty_at_most(tmp_path: Path) -> None:
    for index in range(25):
        (tmp_path / f"q{index:02}").touch()
    text = missing(tmp_path)
    assert "q19 and 5 more" in text
    assert "q20" not in text
    assert "did you mean" not in text


def test_empty_and_absent_directories(tmp_path: Path) -> None:
    assert missing(tmp_path).endswith(f"debian-12; the directory {tmp_path} is empty")
    assert missing(tmp_path / "no").endswith(f"the directory {tmp_path}/no does not exist")
    (tmp_path / "file").touch()
    assert missing(tmp_path / "file").endswith("cannot be listed: Not a directory")


def test_no_name(tmp_path: Path) -> None:
    (tmp_path / "a-x86_64.img").touch()
    assert missing(tmp_path, "").startswith("IMAGE_NAME is not set")
    assert "a-x86_64.img" in missing(tmp_path, "")


def test_names_cannot_drive_a_terminal(tmp_path: Path) -> None:
    (tmp_path / "x\x1b[2J").touch()
    assert "\x1b" not in missing(tmp_path)


def test_dangling_link(tmp_path: Path) -> None:
    os.symlink("/nowhere/x.img", tmp_path / "debian-12-x86_64.img")
    assert missing(tmp_path).endswith("the image is a symbolic link to '/nowhere/x.img', which does not exist")


def test_a_directory_with_a_whole_file_name_is_told(tmp_path: Path) -> None:
    (tmp_path / "debian-12.qcow2").mkdir()
    assert missing(tmp_path, "debian-12.qcow2") == f"{tmp_path}/debian-12.qcow2: is a directory; expected an image"


def test_directory_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "debian-12-x86_64.img").mkdir()
    with pytest.raises(StorageError, match="found a directory or special file"):
        find_image(settings(tmp_path))


def test_link_loop(tmp_path: Path) -> None:
    os.symlink("debian-12-x86_64.img", tmp_path / "debian-12-x86_64.img")
    with pytest.raises(StorageError, match="Too many levels of symbolic links"):
        find_image(settings(tmp_path))


def test_a_dump_has_two_files_where_the_kernel_is_inside(tmp_path: Path) -> None:
    root, boot = tmp_path / "debian-12-x86_64-root.dump", tmp_path / "debian-12-x86_64-boot.dump"
    root.touch()
    wanted = settings(tmp_path, kind="dump")
    assert find_image(wanted, kernel_inside=False) == ImageFile(str(root), False, None, is_dump=True)
    with pytest.raises(MissingImageError, match=r"x86_64-boot\.dump: the image does not exist"):
        find_image(wanted, kernel_inside=True)
    boot.touch()
    expected = ImageFile(str(root), False, None, is_dump=True, boot_path=str(boot))
    assert find_image(wanted, kernel_inside=True) == expected


def test_with_an_address_the_image_is_in_the_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/x-x86_64.img").touch()
    values = {"IMAGE_URL": "http://h/d", "CACHE_DIR": str(tmp_path / "cache"), "IMAGE_NAME": "x", "ARCH": "x86_64"}
    assert find_image(Settings.from_layers([Layer("test", values)])).path == str(tmp_path / "cache/x-x86_64.img")


def test_hidden_names_are_not_offered(tmp_path: Path) -> None:
    (tmp_path / ".debian-12-x86_64.img.part").touch()
    assert missing(tmp_path).endswith(f"the directory {tmp_path} is empty")


def test_an_image_of_another_type(tmp_path: Path) -> None:
    """What ganeti-instance-image took without IMAGE_TYPE was a dump."""
    (tmp_path / "debian-12-x86_64-root.dump").touch()
    (tmp_path / "debian-11-x86_64.img").touch()
    text = missing(tmp_path)
    assert "; IMAGE_TYPE is qemu, did you mean dump, debian-12-x86_64-root.dump? " in text
    with pytest.raises(
        MissingImageError, match=r"-boot\.dump: the image does not exist; it is the /boot of an instance "
    ):
        find_image(settings(tmp_path, kind="dump"))


def test_an_image_that_is_not_complete(tmp_path: Path) -> None:
    path = tmp_path / "x.qcow2"
    header = {"backing_file_offset": 120, "backing_file_size": 8}
    path.write_bytes(Craft(cluster_bits=12, size=4096, extensions=bytes(8) + b"base.img", header=header).build())
    with pytest.raises(UnsupportedImageError, match=r"^disk: names the backing file 'base\.img', but an image must be"):
        open_complete_image(str(path), format="qcow2", name="disk")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("debian-13-genericcloud-amd64.qcow2", "qemu"),
        ("FreeBSD-14.2-RELEASE-amd64.raw.xz", "qemu"),
        ("openwrt-23.05-x86-64-generic-ext4-combined.img.gz", "qemu"),
        ("alpine-minirootfs-3.21.0-x86_64.tar.gz", "tarball"),
        ("rootfs.tar.xz", "tarball"),
        ("SYSTEM.TXZ", "tarball"),
        ("web-root.dump", "dump"),
        ("no-ending-that-tells", "qemu"),
    ],
)
def test_a_whole_file_name_tells_its_type(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).touch()
    (tmp_path / f"{name}-x86_64.img").touch()
    wanted = settings(tmp_path, name, kind="")
    assert wanted.image_type == kind
    found = find_image(wanted, kernel_inside=False)
    assert (found.path, found.is_archive, found.is_dump) == (str(tmp_path / name), kind == "tarball", kind == "dump")


def test_a_type_that_is_set_is_taken_whatever_the_ending(tmp_path: Path) -> None:
    (tmp_path / "x.img").touch()
    assert find_image(settings(tmp_path, "x.img", kind="raw")).format == "raw"
    assert find_image(settings(tmp_path, "x.img", kind="tarball")).is_archive


@pytest.mark.parametrize(
    ("arch", "there", "found"),
    [
        ("x86_64", ("x-amd64.img",), "x-amd64.img"),
        ("x86_64", ("x-amd64.img", "x-x86_64.img"), "x-x86_64.img"),
        ("amd64", ("x-amd64.img", "x-x86_64.img"), "x-amd64.img"),
        ("aarch64", ("x-arm64.img", "x-x86_64.img"), "x-arm64.img"),
        ("arm64", ("x-aarch64.img",), "x-aarch64.img"),
        ("ppc64el", ("x-ppc64le.img",), "x-ppc64le.img"),
        ("i386", ("x-i686.img",), "x-i686.img"),
    ],
)
def test_an_architecture_by_any_of_its_names(tmp_path: Path, arch: str, there: tuple[str, ...], found: str) -> None:
    for name in there:
        (tmp_path / name).touch()
    values = {"IMAGE_DIR": str(tmp_path), "IMAGE_NAME": "x", "ARCH": arch}
    assert find_image(Settings.from_layers([Layer("test", values)])).path == str(tmp_path / found)


def test_a_directory_of_that_name_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "debian-12").mkdir()
    (tmp_path / "debian-12-x86_64.img").touch()
    assert find_image(settings(tmp_path)).path == str(tmp_path / "debian-12-x86_64.img")


def test_a_whole_name_that_is_missing_is_told_first(tmp_path: Path) -> None:
    (tmp_path / "debian-13-amd64.qcow2").touch()
    assert missing(tmp_path, "debian-12-amd64.qcow2") == (
        f"{tmp_path}/debian-12-amd64.qcow2: the image does not exist, nor is there debian-12-amd64.qcow2-x86_64.img or "
        "debian-12-amd64.qcow2-amd64.img or debian-12-amd64.qcow2-x64.img; did you mean debian-13-amd64.qcow2? "
        f"{tmp_path} contains: debian-13-amd64.qcow2"
    )
