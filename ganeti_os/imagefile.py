# SPDX-License-Identifier: MIT
"""From an image's name to its file: IMAGE_DIR/IMAGE_NAME-ARCH and the suffix of IMAGE_TYPE."""

from __future__ import annotations

import difflib
import errno
import os
import stat
from dataclasses import dataclass

from ganeti_os.settings import Settings
from pydiskimg.errors import StorageError, storage_error

SUFFIXES = {"tarball": ".tar.gz", "qemu": ".img", "raw": ".raw", "qcow2": ".qcow2"}

_SHOWN = 20  # names in a message
_LISTED = 10_000  # names looked at


class MissingImageError(StorageError):
    """The image that the settings name does not exist."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that exists. format is what to open it as: raw, qcow2, or None for looking at the contents.

    is_archive tells a tarball, which is unpacked and has no format.
    """

    path: str
    is_archive: bool
    format: str | None


def find_image(settings: Settings) -> ImageFile:
    """Return the image that the settings name.

    Raises MissingImageError, which says what there is instead, or StorageError when it cannot be looked at.
    """
    if not settings.image_name:
        raise MissingImageError(
            f"IMAGE_NAME is not set; expected the name of an image in {settings.image_dir}; "
            f"{_listing(settings.image_dir)}",
            errno=errno.ENOENT,
            filename=settings.image_dir,
        )
    name = f"{settings.image_name}-{settings.arch}{SUFFIXES[settings.image_type]}"
    path = os.path.join(settings.image_dir, name)
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(path) from None
    except OSError as error:
        raise storage_error(error, path, "cannot look at the image") from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        message = f"{path}: found a directory or special file, expected an image"
        raise StorageError(message, errno=errno.EINVAL, filename=path)
    is_archive = settings.image_type == "tarball"
    return ImageFile(path, is_archive, settings.image_type if settings.image_type in ("raw", "qcow2") else None)


def _missing(path: str) -> MissingImageError:
    directory, wanted = os.path.split(path)
    if os.path.islink(path):
        message = f"{path}: the image is a symbolic link to {os.readlink(path)!r}, which does not exist"
        return MissingImageError(message, errno=errno.ENOENT, filename=path)
    nearest = _nearest(wanted, directory)
    offer = f"did you mean {_shown(nearest[0])}? " if nearest else ""
    message = f"{path}: there is no such image; {offer}{_listing(directory)}"
    return MissingImageError(message, errno=errno.ENOENT, filename=path)


def _listing(directory: str) -> str:
    """Return what a directory holds, as the end of a sentence."""
    try:
        names = _names(directory)
    except FileNotFoundError:
        return f"the directory {directory} does not exist"
    except OSError as error:
        return f"the directory {directory} cannot be listed: {os.strerror(error.errno or 0)}"
    if not names:
        return f"the directory {directory} is empty"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"in {directory} there is: {', '.join(map(_shown, names[:_SHOWN]))}{more}"


def _names(directory: str) -> list[str]:
    """Return the names in a directory in order, _LISTED of them at most."""
    with os.scandir(directory) as entries:
        return sorted(entry.name for _, entry in zip(range(_LISTED), entries, strict=False))


def _shown(name: str) -> str:
    return name if name.isprintable() and " " not in name else repr(name)


def _nearest(wanted: str, directory: str) -> list[str]:
    try:
        return difflib.get_close_matches(wanted, _names(directory), n=1)
    except OSError:  # the listing says why
        return []
