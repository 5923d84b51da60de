# SPDX-License-Identifier: MIT
"""An image and its backing files, as far as the policy allows opening them: for info --backing-chain, and for refusing
to copy them into the image.
"""

from __future__ import annotations

import os
from contextlib import ExitStack

from pydiskimg.cli.info import Facts, describe_file
from pydiskimg.cli.references import references
from pydiskimg.errors import InvalidImageError, UnsupportedImageError
from pydiskimg.images import FORMATS, detect_image
from pydiskimg.images.chain import MAX_BACKING_FILES, require_raw, stated_backing_format
from pydiskimg.images.raw import open_image_file
from pydiskimg.images.references import AllowedDirectory, Reference, denied
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.cli import Arguments
    from pydiskimg.protocols import ImageBytes


def describe_chain(arguments: Arguments) -> Iterator[Facts]:
    """Yield the facts about the image and about each of its backing files, the image's own first.

    Raises as describe() does, and UnsupportedImageError for a backing file that may not be opened.
    """
    for file, format_name in _chain(arguments, arguments.file):
        yield describe_file(file, file.name, format_name)


def files_of_image(arguments: Arguments) -> dict[tuple[int, int], str]:
    """Return the reasons why files of IMAGE cannot be copied into it, by (st_dev, st_ino).

    Raises as describe_chain().
    """
    found: dict[tuple[int, int], str] = {}
    for file, _ in _chain(arguments, arguments.image):
        what = f"is a backing file of {arguments.image}" if found else "is the image itself"
        assert not isinstance(file.identity, str)  # an image at an address cannot be a target
        found[file.identity] = f"{what}, and cannot be copied into it"
    return found


def check_not_of_image(refused: dict[tuple[int, int], str], file: str | int, *, name: str, follow: bool) -> None:
    """Raise StorageError if a file, given by its path or descriptor, is one of files_of_image(); with follow the target
    of a symlink is checked.
    """
    from pydiskimg.files.directory import check_not_refused  # imported here: info needs no files

    try:
        status = os.stat(file, follow_symlinks=follow)
    except OSError:
        return  # reading it will report the error
    check_not_refused(refused, status, os.fsencode(name))


def _chain(arguments: Arguments, path: str) -> Iterator[tuple[ImageBytes, str]]:
    """Yield an image and its backing files, each with its format."""
    seen: dict[tuple[int, int] | str, str] = {}
    with references(arguments) as policy, ExitStack() as opened:
        file: ImageBytes | None = opened.enter_context(open_image_file(path))
        format_name: str | None = arguments.format
        while file is not None:
            if file.identity in seen:
                raise InvalidImageError(
                    f"{file.name}: is {seen[file.identity]} again; an image cannot be its own backing file"
                )
            if len(seen) > MAX_BACKING_FILES:
                raise UnsupportedImageError(
                    f"{file.name}: comes after {MAX_BACKING_FILES} backing files, and at most that many are opened"
                )
            seen[file.identity] = file.name
            format_name = format_name or detect_image(file)
            yield file, format_name
            file, format_name = _backing(file, format_name, policy, opened)


def _backing(
    file: ImageBytes, format_name: str, policy: AllowedDirectory | None, opened: ExitStack
) -> tuple[ImageBytes | None, str | None]:
    """The backing file of an image, and its format if the image states it; None if there is none."""
    header = FORMATS[format_name].header(file)
    if header is None or header.backing_file is None:
        return None, None
    reference = Reference(header.backing_file, "backing file", file.name, os.path.dirname(file.name))
    if policy is None:
        raise denied(reference)
    stated = stated_backing_format(header, file.name)
    backing = opened.enter_context(policy.open(reference))
    if stated is None:
        require_raw(backing, file.name)
    return backing, stated or "raw"
