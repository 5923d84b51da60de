# SPDX-License-Identifier: MIT
"""Is the image what IMAGE_TYPE says? A download's error page or an archive must not become an instance's disk.

What is refused is known to be something else. What is not known is copied with a warning: no list has the disk
labels of all systems.
"""

from __future__ import annotations

import logging
from types import MappingProxyType

from ganeti_os.settings.image_names import COMPRESSIONS
from pydiskimg.errors import FileSystemError, InvalidImageError, UnsupportedImageError
from pydiskimg.fs.probe import probe
from pydiskimg.fs.signatures import stranger
from pydiskimg.images import FORMATS
from pydiskimg.images.contents import Contents, Sort, file_contents
from pydiskimg.images.raw import open_raw
from pydiskimg.partitions.layout import MBR
from pydiskimg.partitions.partition import has_mbr
from pydiskimg.protocols import Source, read_bytes

log = logging.getLogger(__name__)


_EXPECTED = MappingProxyType(
    {
        "qemu": f"a {' or '.join(FORMATS)} disk image",
        **{name: f"a {name} disk image" for name in FORMATS},
        "tarball": "a tar archive",
        "dump": "a dump(8) of a root file system",
    }
)
# What each may be: a tarball may be compressed, and what that holds is for its reader to say.
_FITTING = MappingProxyType(
    {"qemu": (Sort.QCOW2,), "qcow2": (Sort.QCOW2,), "tarball": (Sort.TAR, Sort.COMPRESSED), "dump": (Sort.DUMP,)}
)
_DISK_TYPES = ("qemu", *FORMATS)
# As distributions compress their disk images.
_PACKED = tuple(f"compressed with {program}" for program in ("gzip", "xz", "zstd", "bzip2"))
_ADVICE = MappingProxyType(
    {
        Sort.QCOW2: "IMAGE_TYPE=qcow2 installs it (without an ending in IMAGE_NAME, from a name that ends in .qcow2)",
        Sort.IMAGE: "convert it with: qemu-img convert -O qcow2 OLD NEW",
        Sort.COMPRESSED: "decompress it with: {program} -d",
        Sort.TAR: "IMAGE_TYPE=tarball installs it (without an ending in IMAGE_NAME, from a name that ends in .tar.gz)",
        Sort.DUMP: "IMAGE_TYPE=dump installs it, from a name that ends in -root.dump",
        Sort.TEXT: "it may be the error page of a download; put the image in its place",
        Sort.OTHER: "put the image in its place",
    }
)


def check_image_file(path: str, image_type: str) -> bool:
    """Return whether the file is compressed, and what is in it is to be checked by check_disk_contents().

    Raises UnsupportedImageError when it is known to be something else than an image of this IMAGE_TYPE.
    """
    with open_raw(path) as file:
        found = file_contents(file)
        ending = next((ending for ending in COMPRESSIONS if path.lower().endswith(ending)), None)
        if found is not None and image_type in _DISK_TYPES and found.what in _PACKED:
            if ending is None:
                log.warning("%s: is %s, as its name does not say; what is in it is installed", path, found.what)
            return True
        if found is None and image_type in _DISK_TYPES and ending is not None:
            raise UnsupportedImageError(
                f"{path}: does not begin as a file that is compressed, as its name ends in {ending}; it is damaged or "
                "misnamed; nothing was written"
            )
        if found is not None and found.sort not in _FITTING.get(image_type, ()):
            raise UnsupportedImageError(_sentence(file, found, _EXPECTED[image_type]))
    return False


def check_disk_contents(image: Source, *, inside: bool = False) -> None:
    """Raise an error when the disk in the image cannot be one; warn when nothing on it is known.

    inside tells that the bytes are the beginning of what a compressed file holds. UnsupportedImageError for the
    contents of another file, InvalidImageError for less than a sector.
    """
    found = file_contents(image)
    if found is not None:
        raise UnsupportedImageError(_sentence(image, found, "a disk", inside=inside))
    if image.size < MBR.size:
        raise InvalidImageError(
            f"{image.name}: holds {image.size} bytes; a disk has at least one sector, {MBR.size} bytes"
        )
    if not _is_known(image):
        log.warning(
            "%s: no partition table, file system or boot sector was found in it; it is copied as it is", image.name
        )


def _sentence(source: Source, found: Contents, expected: str, *, inside: bool = False) -> str:
    advice = _ADVICE[found.sort].format(program=found.what.rpartition(" ")[2])
    verb = "holds, decompressed," if inside and found.sort is not Sort.COMPRESSED else "is"
    return f"{source.name}: {verb} {found.what}, expected {expected}; {advice}; nothing was written"


def _is_known(disk: Source) -> bool:
    if has_mbr(read_bytes(disk, 0, MBR.size)):
        return True
    try:
        return probe(disk) is not None or stranger(disk) is not None
    except FileSystemError:  # of two, in one place
        return True
