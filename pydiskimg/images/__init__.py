# SPDX-License-Identifier: MIT
"""The image formats: one row for each, and how an image's format is detected from its first bytes.

The code of a format is imported on first use: the fastest commands come through here.
"""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from contextlib import AbstractContextManager, ExitStack
    from typing import Any

    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.images.map import MapLayer
    from pydiskimg.images.qcow2.check import CheckResult
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.images.qcow2.snapshots import Snapshot
    from pydiskimg.images.qcow2.write.disk import Qcow2Disk
    from pydiskimg.protocols import Disk, ImageBytes, ImageSource, Progress, Source

PROTOCOLS = ("file", "host_device")  # which QEMU accepts as names of raw formats
_CONVERT = "convert it with: qemu-img convert -O qcow2 OLD NEW"


class Format:
    """The operations on images of one format. Defaults are those of raw.

    name is qemu-img's, title for messages, magic the first bytes that identify it. Files stay the caller's.
    """

    name = "raw"
    title = "a raw image"
    magic = b""
    has_options = False  # for new images, and backing files
    is_checked = False

    def open(self, file: ImageBytes, *, snapshot: str | None, **how: Any) -> ImageSource:
        """Return the disk in file as open_image() does; its close() closes file, too."""
        del how
        if snapshot is not None:
            raise UnsupportedImageError(
                f"{file.name}: is {self.title}, which has no snapshots; {snapshot!r} was requested"
            )
        return file

    def open_disk(self, stack: ExitStack, disk: DescriptorDisk, **how: Any) -> DescriptorDisk | Qcow2Disk:
        """Return the disk in the image on disk, as open_disk() does; stack closes what is opened for it."""
        del stack, how
        return disk

    def new(self, path: str | os.PathLike[str], size: int, **options: Any) -> AbstractContextManager[Disk]:
        """Make a new image as new_image() does, whose options a format that has_options gets."""
        from pydiskimg.images.create import new_raw

        return new_raw(path, size, preallocation=options["preallocation"])

    def header(self, file: ImageBytes) -> Header | None:
        """Return the image's own description: its size, its backing file; None if it has none."""
        del file
        return None

    def facts(self, file: ImageBytes, path: str) -> dict[str, object]:
        """Return the facts of `qemu-img info --output=json`, under its names."""
        stored = file.stored()
        actual = {} if stored is None else {"actual-size": stored}
        return {"virtual-size": file.size, "filename": path, "format": self.name, **actual, "dirty-flag": False}

    def snapshots(self, file: ImageBytes) -> list[Snapshot] | None:
        """Return the internal snapshots; None for a format without snapshots."""
        del file
        return None

    def check(self, file: ImageBytes, progress: Progress | None) -> CheckResult:
        """Return the findings of a check; UnsupportedImageError for a format that is not is_checked."""
        del progress
        raise UnsupportedImageError(f"{file.name}: is {self.title}, which has nothing to check")

    def layer(self, source: Source) -> MapLayer:
        """Return the locations of the bytes of source, of this format, without its backing file, for map_rows()."""
        from pydiskimg.images.raw_layer import RawLayer

        return RawLayer(source)


class _Qcow2(Format):
    name = "qcow2"
    title = "a qcow2 image"
    magic = b"QFI\xfb"  # as in qcow2/layout.py, which is not imported for raw files
    has_options = True
    is_checked = True

    def open(self, file: ImageBytes, *, snapshot: str | None, **how: Any) -> ImageSource:
        header = self.header(file)
        if header.names_files:
            from pydiskimg.images.chain import open_owned_chain

            return open_owned_chain(file, snapshot=snapshot, **how)
        from pydiskimg.images.qcow2.reader import open_qcow2

        return open_qcow2(file, header=header, snapshot=snapshot, on_close=file.close)

    def open_disk(self, stack: ExitStack, disk: DescriptorDisk, **how: Any) -> DescriptorDisk | Qcow2Disk:
        from pydiskimg.images.chain import open_chain_disk

        return open_chain_disk(stack, disk, **how)

    def new(self, path: str | os.PathLike[str], size: int, **options: Any) -> AbstractContextManager[Disk]:
        from pydiskimg.images.create import new_qcow2

        return new_qcow2(path, size, **options)

    def header(self, file: ImageBytes) -> Header:
        from pydiskimg.images.qcow2.header import read_header

        return read_header(file)

    def facts(self, file: ImageBytes, path: str) -> dict[str, object]:
        from pydiskimg.images.qcow2.header import image_facts

        return image_facts(file, path, stored=file.stored())

    def snapshots(self, file: ImageBytes) -> list[Snapshot]:
        from pydiskimg.images.qcow2.snapshots import read_snapshots

        return read_snapshots(file, self.header(file))

    def check(self, file: ImageBytes, progress: Progress | None) -> CheckResult:
        from pydiskimg.images.qcow2.check import check_qcow2

        return check_qcow2(file, progress=progress)

    def layer(self, source: Source) -> MapLayer:
        from pydiskimg.images.map import Qcow2Layer

        return Qcow2Layer(source)


FORMATS = {row.name: row for row in (Format(), _Qcow2())}

# Signatures, with their offsets, of formats that cannot be read, and advice.
_SIGNATURES = (
    (0, b"QFI\xfb\0\0\0\x01", "a qcow image of version 1", _CONVERT),
    (0, b"QED\0", "a QED image", _CONVERT),
    (0, b"KDMV", "a VMDK image", _CONVERT),
    (0, b"COWD", "a VMDK image (version 3, of ESX)", _CONVERT),
    (0, b"# Disk DescriptorFile", "the text descriptor of a VMDK image", _CONVERT),
    (64, b"\x7f\x10\xda\xbe", "a VDI image", _CONVERT),
    (0, b"conectix", "a VHD image", _CONVERT),
    (0, b"vhdxfile", "a VHDX image", _CONVERT),
    (0, b"WithoutFreeSpace", "a Parallels image", _CONVERT),
    (0, b"WithouFreSpacExt", "a Parallels image", _CONVERT),
    (0, b"\x1f\x8b\x08", "compressed with gzip", "decompress it with: gzip -d"),
    (0, b"\xfd7zXZ\0", "compressed with xz", "decompress it with: xz -d"),
    (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it with: zstd -d"),
    *((0, b"BZh%d1AY&SY" % level, "compressed with bzip2", "decompress it with: bzip2 -d") for level in range(1, 10)),
)

_LOOK_AT = 512


def detect(source: Source) -> str:
    """Return the format of the image with the bytes of source: raw for unknown bytes.

    Only for images that an administrator chose: a guest can write any of these bytes to its disk.
    Raises UnsupportedImageError for a known format that cannot be read.
    """
    head = read_bytes(source, 0, min(_LOOK_AT, source.size))
    unread = _unread(head)
    if unread is not None:
        what, advice = unread
        raise UnsupportedImageError(
            f"{source.name}: is {what}, and only {' and '.join(FORMATS)} images are read; {advice}"
        )
    return recognised(head).name


def looks_like(source: Source) -> str | None:
    """Return what the first bytes show, such as "a VMDK image" or "compressed with xz"; None if it may be raw."""
    head = read_bytes(source, 0, min(_LOOK_AT, source.size))
    unread = _unread(head)
    if unread is not None:
        return unread[0]
    found = recognised(head)
    return found.title if found.magic else None


def recognised(head: bytes) -> Format:
    """Return the row of the format whose magic begins head; raw's if there is none."""
    return next((row for row in FORMATS.values() if row.magic and head.startswith(row.magic)), FORMATS["raw"])


def _unread(head: bytes) -> tuple[str, str] | None:
    """What these first bytes are if they cannot be read, and advice."""
    for offset, magic, what, advice in _SIGNATURES:
        if head.startswith(magic, offset):
            return what, advice
    return None


def detect_image(file: ImageBytes) -> str:
    """Return the format of an opened image as detect() does; a block device must look like raw.

    Raises UnsupportedImageError for a device that looks like another format, and for a known format that cannot be
    read.
    """
    found = detect(file)
    if file.is_block_device and FORMATS[found].magic:
        raise UnsupportedImageError(
            f"{file.name}: looks like {FORMATS[found].title}, which a guest can write to its disk too; "
            f"name the format: raw for a disk, {found} for an image kept on a device"
        )
    return found
