# SPDX-License-Identifier: MIT
"""Arguments that several subcommands have: names, which may be none that can be meant, and sizes."""

from __future__ import annotations

import errno
import os

from pydiskimg.errors import StorageError, UnsupportedImageError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    from uuid import UUID

    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import ImageBytes, ImageSource


def without_protocol(name: str) -> str:
    """Return the path that name is for: qemu-img takes "file:" off, the protocol of files."""
    path = name.removeprefix("file:")
    # A colon in the rest is not one after the name of a protocol.
    return f"./{path}" if path != name and ":" in path.partition("/")[0] else path


def require_name(path: str, what: str = "image") -> None:
    """Raise StorageError for an empty name, which an unset shell variable leaves; what says whose it is."""
    if not path:
        raise StorageError(f"the name of the {what} is empty", errno=errno.ENOENT, filename=path)


def require_file_name(path: str) -> None:
    """Raise StorageError for an empty name, and for "-" where that is not the name of a file."""
    require_name(path)
    if path == "-" and not os.path.lexists(path):
        raise StorageError(
            "-: only convert reads from a pipe; where standard input is a file, name it /dev/stdin",
            errno=errno.ENOENT,
            filename=path,
        )


def open_source(
    name: str,
    *,
    format: str | None,  # noqa: A002  qemu-img's word
    references: AllowedDirectory | None,
    snapshot: str | None = None,
) -> ImageSource:
    """Open the image of this name as open_image() does, or the one that is described where resolved from --image-opts.

    A description is a str of a type of its own, and says the format itself.
    """
    if type(name) is str:
        from pydiskimg.images.open import open_image

        return open_image(name, format=format, references=references, snapshot=snapshot)
    from pydiskimg.cli.described import open_described
    from pydiskimg.cli.image_description import ImageDescription

    assert isinstance(name, ImageDescription)
    return open_described(name, references=references, snapshot=snapshot)


def open_file(name: str) -> ImageBytes:
    """Open the file of this name as open_image_file() does, or the part of one that is described."""
    if type(name) is str:
        from pydiskimg.images.raw import open_image_file

        return open_image_file(name)
    from pydiskimg.cli.described import open_described_file

    return open_described_file(name)


def require_whole(name: str, option: str) -> None:
    """Raise UnsupportedImageError where name is a described part of a file, which option is not for."""
    if type(name) is not str:
        raise UnsupportedImageError(f"{name}: {option} is for a whole image, and this is a part of a file")


def size_argument(text: str) -> int:
    """Return the bytes that text names, as a type for argparse: anything but a size ends in wrong usage."""
    try:
        return parse_size(text)
    except ValueError as error:
        from argparse import ArgumentTypeError  # only here: the common forms of convert do without argparse

        raise ArgumentTypeError(str(error)) from None


def uuid_argument(text: str) -> UUID:
    """Return the UUID that text spells, as a type for argparse."""
    from uuid import UUID

    try:
        return UUID(text)
    except ValueError:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} is not a UUID") from None
