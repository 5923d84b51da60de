# SPDX-License-Identifier: MIT
"""The format of an image, told by its first bytes."""

from __future__ import annotations

from pydiskimg.errors import UnsupportedImageError
from pydiskimg.images.qcow2.layout import MAGIC
from pydiskimg.protocols import read_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.images.raw import RawSource
    from pydiskimg.protocols import Source

_CONVERT = "convert it with: qemu-img convert -O qcow2 OLD NEW"


# Bytes at an offset that give away a format which is not read, and what to do about it.
_SIGNATURES = (
    (0, MAGIC + b"\0\0\0\x01", "a qcow image of version 1", _CONVERT),
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
    """Return the format of the image whose bytes source has: qcow2, or raw for whatever is not known.

    Only for images that an administrator chose: a guest can write any of these bytes to its disk.
    Raises UnsupportedImageError for a known format that is not read.
    """
    head = read_bytes(source, 0, min(_LOOK_AT, source.size))
    unread = _unread(head)
    if unread is not None:
        what, advice = unread
        raise UnsupportedImageError(f"{source.name}: is {what}, and only raw and qcow2 images are read; {advice}")
    return "qcow2" if head.startswith(MAGIC) else "raw"


def looks_like(source: Source) -> str | None:
    """Return what the first bytes say, such as "a VMDK image" or "compressed with xz"; None for what may be raw."""
    head = read_bytes(source, 0, min(_LOOK_AT, source.size))
    unread = _unread(head)
    if unread is not None:
        return unread[0]
    return "a qcow2 image" if head.startswith(MAGIC) else None


def _unread(head: bytes) -> tuple[str, str] | None:
    """What these first bytes are that is not read, and what to do about it."""
    for offset, magic, what, advice in _SIGNATURES:
        if head.startswith(magic, offset):
            return what, advice
    return None


def detect_image(file: RawSource) -> str:
    """Return the format of an opened image as detect() does; a block device must not look like anything but raw.

    Raises UnsupportedImageError for a device that does, and for a known format that is not read.
    """
    found = detect(file)
    if file.is_block_device and found != "raw":
        raise UnsupportedImageError(
            f"{file.name}: looks like a {found} image, which a guest can write to its disk too; "
            "name the format: raw for a disk, qcow2 for an image kept on a device"
        )
    return found
