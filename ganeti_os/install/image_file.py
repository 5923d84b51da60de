# SPDX-License-Identifier: MIT
"""Find an image's file by its name in IMAGE_DIR, or CACHE_DIR with IMAGE_URL: IMAGE_NAME, or IMAGE_NAME-ARCH.img."""

from __future__ import annotations

import difflib
import errno
import os
import stat
from dataclasses import dataclass

from ganeti_os.install.directory_listing import listed_names, listing, shown_name
from ganeti_os.settings.image_names import BOOT_DUMP, ROOT_DUMP, is_file_name, spellings
from ganeti_os.settings.settings import Settings
from pydiskimg.errors import InvalidImageError, ReferenceDeniedError, StorageError, UnsupportedImageError, storage_error
from pydiskimg.images import FORMATS
from pydiskimg.images.open import open_image
from pydiskimg.protocols import ImageSource
from pydiskimg.text import quoted

SUFFIXES = {"tarball": ".tar.gz", "qemu": ".img", **{name: f".{name}" for name in FORMATS}, "dump": ROOT_DUMP}


class MissingImageError(StorageError):
    """The image in the settings does not exist."""


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image that exists. format is the format to open it with: raw, qcow2, or None to detect it.

    is_archive: a tarball, which is unpacked and has no format; is_dump: a dump(8) of the root file system, whose /boot
    is in boot_path if needed. is_packed: a disk image that is compressed, or the only file in a tarball.
    """

    path: str
    is_archive: bool
    format: str | None
    is_dump: bool = False
    boot_path: str | None = None
    is_packed: bool = False
    in_tarball: bool = False


def image_names(settings: Settings, *, kernel_inside: bool) -> list[tuple[str, ...]]:
    """Return the possible names of the image's files, in the order of search; each with the root's name first.

    First IMAGE_NAME itself if it can be a whole file name, then IMAGE_NAME-ARCH with IMAGE_TYPE's suffix, for each name
    of the architecture. A dump with a kernel inside has two files, all others have one. A name without an ending is a
    whole one only if the images are on this node; it is not requested from a server. Raises MissingImageError without
    IMAGE_NAME.
    """
    directory = image_directory(settings)
    name = settings.image_name
    if not name:
        raise MissingImageError(
            f"IMAGE_NAME is not set; expected the name of an image in {directory}; {listing(directory)}",
            errno=errno.ENOENT,
            filename=directory,
        )
    suffix = SUFFIXES[settings.image_type]
    names = [f"{name}-{arch}{suffix}" for arch in spellings(settings.arch)]
    if is_file_name(name) or not settings.image_url:
        names.insert(0, name)
    both = settings.image_type == "dump" and kernel_inside
    return [(name, *_boot_dump(name)) if both else (name,) for name in names]


def image_directory(settings: Settings) -> str:
    """Return the directory of the images: the cache if they are fetched."""
    return settings.cache_dir if settings.image_url else settings.image_dir


def find_image(settings: Settings, *, kernel_inside: bool = True, names: tuple[str, ...] = ()) -> ImageFile:
    """Return the image of the settings; with IMAGE_URL, names are the files that were fetched.

    Raises MissingImageError, which lists the existing files, or StorageError when it cannot be examined.
    """
    directory = image_directory(settings)
    candidates = [names] if names else image_names(settings, kernel_inside=kernel_inside)
    chosen = next((found for found in candidates if _is_there(directory, found[0], settings)), None)
    if chosen is None:
        raise _missing(directory, [found[0] for found in candidates], settings)
    paths = [os.path.join(directory, name) for name in chosen]
    for path in paths:
        _check_image(path, settings)
    return ImageFile(
        paths[0],
        is_archive=settings.image_type == "tarball",
        format=settings.image_type if settings.image_type in FORMATS else None,
        is_dump=settings.image_type == "dump",
        boot_path=paths[1] if len(paths) > 1 else None,
    )


def _boot_dump(name: str) -> tuple[str, ...]:
    """Return the name of a root's /boot; none if the name is not that of a root."""
    return (name.removesuffix(ROOT_DUMP) + BOOT_DUMP,) if name.endswith(ROOT_DUMP) else ()


def _is_there(directory: str, name: str, settings: Settings) -> bool:
    """True if a file of that name exists, or a broken link, which a message will report.

    A directory called IMAGE_NAME is not meant.
    """
    path = os.path.join(directory, name)
    return os.path.lexists(path) and not (name == settings.image_name and os.path.isdir(path))


def open_complete_image(path: str, *, format: str | None, name: str | None = None) -> ImageSource:  # noqa: A002
    """Open a disk image as open_image() does, and refuse incomplete ones with advice for an administrator.

    These are images that need another file, and images of 0 bytes.
    """
    try:
        image = open_image(path, format=format, name=name)
    except ReferenceDeniedError as error:
        raise UnsupportedImageError(
            f"{error.reference}, but an image must be complete without other files here; make a complete one with: "
            "pydiskimg convert --allow-references DIR -O qcow2 IMAGE NEW"
        ) from None
    if not image.size:
        image.close()
        raise InvalidImageError(f"{image.name}: is the image of a disk of 0 bytes; expected a disk with data")
    return image


def _check_image(path: str, settings: Settings) -> None:
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise _missing(*os.path.split(path), settings) from None
    except OSError as error:
        raise storage_error(error, path, "cannot examine the image") from error
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        message = f"{path}: found a directory or special file, expected an image"
        raise StorageError(message, errno=errno.EINVAL, filename=path)


def _missing(directory: str, name: str | list[str], settings: Settings) -> MissingImageError:
    """Return the error if the file, or all files, of these names are missing."""
    names = [name] if isinstance(name, str) else name
    usual = [each for each in names if each != settings.image_name or is_file_name(each)]
    wanted, *others = usual
    path = os.path.join(directory, wanted)
    if os.path.islink(path):
        message = f"{path}: the image is a symbolic link to {quoted(os.readlink(path))}, which does not exist"
        return MissingImageError(message, errno=errno.ENOENT, filename=path)
    if os.path.isdir(path):
        return MissingImageError(f"{path}: is a directory; expected an image", errno=errno.EISDIR, filename=path)
    others += [each for each in names if each not in usual]
    nor = f", nor is there {' or '.join(map(shown_name, others))}" if others else ""
    message = f"{path}: the image does not exist{nor}; {_offer(wanted, directory, settings)}{listing(directory)}"
    return MissingImageError(message, errno=errno.ENOENT, filename=path)


def _offer(wanted: str, directory: str, settings: Settings) -> str:
    """Return a suggestion: the image as another IMAGE_TYPE, or the nearest name."""
    try:
        names = listed_names(directory)
    except OSError:  # the listing explains it
        return ""
    if wanted.endswith(BOOT_DUMP):  # its root exists
        return "it is the /boot of an instance that boots its own kernel; "
    for image_type, suffix in SUFFIXES.items():
        for arch in spellings(settings.arch):
            name = f"{settings.image_name}-{arch}{suffix}"
            if name in names:
                return f"IMAGE_TYPE is {settings.image_type}, did you mean {image_type}, {shown_name(name)}? "
    nearest = difflib.get_close_matches(wanted, names, n=1)
    return f"did you mean {shown_name(nearest[0])}? " if nearest else ""
