# SPDX-License-Identifier: MIT
"""Arguments that several subcommands have: names, which must not be empty, and sizes."""

from __future__ import annotations

import errno
import os

from pydiskimg.cli import EmptyNameError
from pydiskimg.errors import StorageError, UnsupportedImageError
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import parse_size

if TYPE_CHECKING:
    from collections.abc import Iterable
    from uuid import UUID

    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import ImageBytes, ImageSource


def without_protocol(name: str) -> str:
    """Return the path in name, without a leading "file:", which qemu-img accepts as the protocol of files."""
    path = name.removeprefix("file:")
    # A colon in the rest does not follow the name of a protocol.
    return f"./{path}" if path != name and ":" in path.partition("/")[0] else path


def require_name(path: str, what: str = "image") -> None:
    """Raise EmptyNameError for an empty name, which an unset shell variable gives; what says what it names."""
    if not path:
        raise EmptyNameError(f"the name of the {what} is empty", errno=errno.ENOENT, filename=path)


def require_names(paths: Iterable[str]) -> None:
    """Raise EmptyNameError if one of several images has an empty name, before the first one is opened."""
    for path in paths:
        require_name(path)


def require_file_name(path: str) -> None:
    """Raise EmptyNameError for an empty name, and StorageError for "-" if that is not the name of a file."""
    require_name(path)
    if path == "-" and not os.path.lexists(path):
        raise StorageError(
            "-: only convert reads from a pipe; if standard input is a file, name it /dev/stdin",
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
    """Open the image of this name as open_image() does, or the image in a description, resolved from --image-opts.

    A description is a str of its own type, and states the format itself.
    """
    if type(name) is str:
        from pydiskimg.images.open import open_image

        return open_image(name, format=format, references=references, snapshot=snapshot)
    from pydiskimg.cli.described import open_described
    from pydiskimg.cli.image_description import ImageDescription

    assert isinstance(name, ImageDescription)
    return open_described(name, references=references, snapshot=snapshot)


def open_file(name: str) -> ImageBytes:
    """Open the file of this name as open_image_file() does, or the described part of a file."""
    if type(name) is str:
        from pydiskimg.images.raw import open_image_file

        return open_image_file(name)
    from pydiskimg.cli.described import open_described_file

    return open_described_file(name)


def require_whole(name: str, option: str) -> None:
    """Raise UnsupportedImageError if name is a described part of a file, for which option is not possible."""
    if type(name) is not str:
        raise UnsupportedImageError(f"{name}: {option} is for a whole image, and this is a part of a file")


def size_argument(text: str) -> int:
    """Return the bytes that text stands for, as a type for argparse: an invalid size is wrong usage."""
    try:
        return parse_size(text)
    except ValueError as error:
        from argparse import ArgumentTypeError  # imported here: the common forms of convert do not need argparse

        raise ArgumentTypeError(str(error)) from None


def uuid_argument(text: str) -> UUID:
    """Return the UUID in text, as a type for argparse."""
    from uuid import UUID

    try:
        return UUID(text)
    except ValueError:
        from argparse import ArgumentTypeError

        raise ArgumentTypeError(f"{text!r} is not a UUID") from None
