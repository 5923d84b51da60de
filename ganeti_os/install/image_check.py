# SPDX-License-Identifier: MIT
"""Check that an image is of its IMAGE_TYPE: a download's error page or an archive must not become a disk.

Contents that are known to be something else are refused. Unknown ones are copied with a warning, because a list of the
disk labels of all systems does not exist.
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
# Valid contents of each type: a tarball may be compressed; its reader judges the contents.
_FITTING = MappingProxyType(
    {"qemu": (Sort.QCOW2,), "qcow2": (Sort.QCOW2,), "tarball": (Sort.TAR, Sort.COMPRESSED), "dump": (Sort.DUMP,)}
)
_DISK_TYPES = ("qemu", *FORMATS)
# The compressions that distributions use for disk images.
_PACKED = tuple(f"compressed with {program}" for program in ("gzip", "xz", "zstd", "bzip2"))
_ADVICE = MappingProxyType(
    {
        Sort.QCOW2: "IMAGE_TYPE=qcow2 installs it (without an ending in IMAGE_NAME, from a name that ends in .qcow2)",
        Sort.IMAGE: "convert it with: qemu-img convert -O qcow2 OLD NEW",
        Sort.COMPRESSED: "decompress it with: {program} -d",
        Sort.TAR: "IMAGE_TYPE=tarball installs it (without an ending in IMAGE_NAME, from a name that ends in .tar.gz)",
        Sort.DUMP: "IMAGE_TYPE=dump installs it, from a name that ends in -root.dump",
        Sort.TEXT: "it may be the error page of a download; replace it by the image",
        Sort.OTHER: "replace it by the image",
    }
)


def check_image_file(path: str, image_type: str) -> bool:
    """Return whether the file is compressed, so that its contents must be checked by check_disk_contents().

    Raises UnsupportedImageError if it is known not to be an image of this IMAGE_TYPE.
    """
    with open_raw(path) as file:
        found = file_contents(file)
        ending = next((ending for ending in COMPRESSIONS if path.lower().endswith(ending)), None)
        if found is not None and image_type in _DISK_TYPES and found.what in _PACKED:
            if ending is None:
                log.warning(
                    "%s: is %s, although its name does not say so; its contents are installed", path, found.what
                )
            return True
        if found is None and image_type in _DISK_TYPES and ending is not None:
            raise UnsupportedImageError(
                f"{path}: does not begin like a compressed file, although its name ends in {ending}; it is damaged or "
                "misnamed; nothing was written"
            )
        if found is not None and found.sort not in _FITTING.get(image_type, ()):
            raise UnsupportedImageError(_sentence(file, found, _EXPECTED[image_type]))
    return False


def check_disk_contents(image: Source, *, inside: bool = False) -> None:
    """Raise an error if the contents of the image cannot be a disk; warn if they are unknown.

    inside means that the bytes are the beginning of a compressed file's contents. UnsupportedImageError for the
    contents of another file type, InvalidImageError for less than a sector.
    """
    found = file_contents(image)
    if found is not None:
        raise UnsupportedImageError(_sentence(image, found, "a disk", inside=inside))
    if image.size < MBR.size:
        raise InvalidImageError(
            f"{image.name}: has {image.size} bytes; a disk has at least one sector, {MBR.size} bytes"
        )
    if not _is_known(image):
        log.warning(
            "%s: no partition table, file system or boot sector was found in it; it is copied unchanged", image.name
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
