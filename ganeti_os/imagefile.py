# SPDX-License-Identifier: MIT
"""From an image's name to its file: IMAGE_DIR (CACHE_DIR with IMAGE_URL), IMAGE_NAME-ARCH, IMAGE_TYPE's suffix."""

from __future__ import annotations

import difflib
import errno
import os
import stat
from dataclasses import dataclass

from ganeti_os.listing import listed_names, listing, shown_name
from ganeti_os.settings import Settings
from pydiskimg.errors import InvalidImageError, ReferenceDeniedError, StorageError, UnsupportedImageError, storage_error
from pydiskimg.image import open_image
from pydiskimg.protocols import ImageSource

SUFFIXES = {"tarball": ".tar.gz", "qemu": ".img", "raw": ".raw", "qcow2": ".qcow2", "dump": "-root.dump"}
BOOT_DUMP_SUFFIX = "-boot.dump"


class MissingImageError(StorageError):
    """The image that the settings name does not exist."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that exists. format is what to open it as: raw, qcow2, or None for looking at the contents.

    is_archive tells a tarball, which is unpacked and has no format; is_dump a dump(8) of the root file system, whose
    /boot is in boot_path when it is needed.
    """

    path: str
    is_archive: bool
    format: str | None
    is_dump: bool = False
    boot_path: str | None = None


def image_names(settings: Settings, *, kernel_inside: bool) -> list[str]:
    """Return the names of the image's files, the root's first: one, or two for a dump that has a kernel inside.

    Raises MissingImageError without IMAGE_NAME.
    """
    directory = image_directory(settings)
    if not settings.image_name:
        raise MissingImageError(
            f"IMAGE_NAME is not set; expected the name of an image in {directory}; {listing(directory)}",
            errno=errno.ENOENT,
            filename=directory,
        )
    stem = f"{settings.image_name}-{settings.arch}"
    names = [stem + SUFFIXES[settings.image_type]]
    if settings.image_type == "dump" and kernel_inside:
        names.append(stem + BOOT_DUMP_SUFFIX)
    return names


def image_directory(settings: Settings) -> str:
    """Return where the images are: the cache, when they are fetched."""
    return settings.cache_dir if settings.image_url else settings.image_dir


def find_image(settings: Settings, *, kernel_inside: bool = True) -> ImageFile:
    """Return the image that the settings name; one with IMAGE_URL must have been fetched before.

    Raises MissingImageError, which says what there is instead, or StorageError when it cannot be looked at.
    """
    directory = image_directory(settings)
    paths = [os.path.join(directory, name) for name in image_names(settings, kernel_inside=kernel_inside)]
    for path in paths:
        _check_image(path, settings)
    return ImageFile(
        paths[0],
        is_archive=settings.image_type == "tarball",
        format=settings.image_type if settings.image_type in ("raw", "qcow2") else None,
        is_dump=settings.image_type == "dump",
        boot_path=paths[1] if len(paths) > 1 else None,
    )


def open_complete_image(path: str, *, format: str | None, name: str | None = None) -> ImageSource:  # noqa: A002
    """Open a disk image as open_image() does, and refuse one that is not all of a disk in words for an administrator.

    That is one that needs another file, and one of 0 bytes.
    """
    try:
        image = open_image(path, format=format, name=name)
    except ReferenceDeniedError as error:
        raise UnsupportedImageError(
            f"{error.reference}, and an image must be complete without other files here; make such a one with: "
            "pydiskimg convert --allow-references DIR -O qcow2 IMAGE NEW"
        ) from None
    if not image.size:
        image.close()
        raise InvalidImageError(f"{image.name}: is the image of a disk of 0 bytes; expected one that holds something")
    return image


def _check_image(path: str, settings: Settings) -> None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path, settings) from None
    except OSError as error:
        raise storage_error(error, path, "cannot look at the image") from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        message = f"{path}: found a directory or special file, expected an image"
        raise StorageError(message, errno=errno.EINVAL, filename=path)


def _missing(path: str, settings: Settings) -> MissingImageError:
    directory, wanted = os.path.split(path)
    if os.path.islink(path):
        message = f"{path}: the image is a symbolic link to {os.readlink(path)!r}, which does not exist"
        return MissingImageError(message, errno=errno.ENOENT, filename=path)
    message = f"{path}: there is no such image; {_offer(wanted, directory, settings)}{listing(directory)}"
    return MissingImageError(message, errno=errno.ENOENT, filename=path)


def _offer(wanted: str, directory: str, settings: Settings) -> str:
    """Return what may have been meant: the image as another IMAGE_TYPE, or the nearest name."""
    try:
        names = listed_names(directory)
    except OSError:  # the listing says why
        return ""
    if wanted.endswith(BOOT_DUMP_SUFFIX):  # its root is there
        return "it is the /boot of an instance that boots its own kernel; "
    for image_type, suffix in SUFFIXES.items():
        name = f"{settings.image_name}-{settings.arch}{suffix}"
        if name in names:
            return f"IMAGE_TYPE is {settings.image_type}, did you mean {image_type}, {shown_name(name)}? "
    nearest = difflib.get_close_matches(wanted, names, n=1)
    return f"did you mean {shown_name(nearest[0])}? " if nearest else ""
