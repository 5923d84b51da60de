# SPDX-License-Identifier: MIT
"""Open described images, and find the descriptions in the arguments of a command line."""

from __future__ import annotations

from contextlib import ExitStack
from typing import cast

from pydiskimg.cli.arguments import without_protocol
from pydiskimg.cli.image_description import JSON, ImageDescription, described_image
from pydiskimg.errors import DoesNotFitError, UnsupportedImageError
from pydiskimg.images import detect_image
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.images.raw import open_raw
from pydiskimg.protocols import ImageBytes, ImageSource
from pydiskimg.regions.region import Region, SourceRegion
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import Disk, Source


class DescribedRegion(SourceRegion, ImageBytes):
    """A part of file, or of the disk of image, that is a file or disk of its own; close() closes image."""

    format = "raw"
    is_block_device = False

    def __init__(self, image: ImageSource, start: int, length: int, *, file: ImageBytes) -> None:
        super().__init__(image, start, length, name=file.name)
        self._image = image
        self._file = file

    @property
    def identity(self) -> tuple[int, int] | str:
        return self._file.identity

    def stored(self) -> int | None:
        return self._file.stored()

    def files(self) -> Iterator[str]:
        return self._image.files()

    def close(self) -> None:
        """Close the image."""
        self._image.close()


def resolve_descriptions(arguments: argparse.Namespace) -> None:
    """Replace descriptions of images by objects, or by a path and format if the subcommand accepts only these.

    A leading "file:" is removed from paths; file_as_given keeps the word that was given for the first image.

    Raises UnsupportedImageError for an invalid description, or one that the subcommand does not support.
    """
    if getattr(arguments, "more_operands", None) is not None:  # convert
        names: list[str] = [arguments.source, arguments.destination, *arguments.more]
        words = [_described(arguments, word, "format") for word in names[:-1]]
        words.append(_described_target(arguments, names[-1]))
        arguments.source, arguments.destination, *arguments.more = words
        return
    arguments.file_as_given = getattr(arguments, "file", None)
    for name, form in (("file", "format"), ("other_file", "other_format")):
        if (word := getattr(arguments, name, None)) is None:
            continue
        found = _described(arguments, word, form)
        if isinstance(found, ImageDescription) and not getattr(arguments, "reads_descriptions", False):
            is_opened = getattr(arguments, "opens_described_data_file", None)
            if is_opened is not None and found.has_other_files:
                _set_aside_data_file(found, is_opened=is_opened)
                arguments.has_described_files = True
            if not found.is_whole and getattr(arguments, "reads_parts", False) and not found.has_other_files:
                setattr(arguments, name, found)
                setattr(arguments, form, found.image_format)
                continue
            if not found.is_whole:
                raise UnsupportedImageError(
                    f"{word}: is a part of a file, or replaces files that it names; this command accepts only whole "
                    "images"
                )
            setattr(arguments, form, found.image_format or getattr(arguments, form, None))
            found = str(found)
        setattr(arguments, name, found)


def _set_aside_data_file(image: ImageDescription, *, is_opened: bool) -> None:
    """Remove from a description what the subcommand does not read: the data file, and that there is no backing file.

    is_opened: the data file must exist, and the image must have one, as for qemu-img.
    """
    if image.backing is False:
        image.backing = None
    if image.data_file is not None and is_opened:
        open_described(image.data_file, references=None, snapshot=None).close()
        with open_described_file(image) as file:
            _check_data_file(file, has_one=read_header(file).has_data_file, is_described=True)
    image.data_file = None


def _described(arguments: argparse.Namespace, word: str, form: str) -> str:
    by_options = getattr(arguments, "image_opts", False)
    if not by_options and not word.startswith(JSON):
        return without_protocol(word)
    found = described_image(word, by_options=by_options)
    if (given := getattr(arguments, form, None)) is not None:
        if by_options:
            arguments.parser.error("-f is for a named image; --image-opts has driver= for that")
        if found.image_format not in (None, given):
            raise UnsupportedImageError(f"{word}: has driver={found.image_format}, but -f is {given}")
        found.image_format = given
    return found


def _described_target(arguments: argparse.Namespace, word: str) -> str:
    if not arguments.target_image_opts and not word.startswith(JSON):
        return without_protocol(word)
    if not arguments.in_place:
        arguments.parser.error("a described image must exist: add -n, or name a new image by its path")
    found = described_image(word, by_options=arguments.target_image_opts)
    if found.backing is not None or found.data_file is not None:
        raise UnsupportedImageError(f"{word}: for writing, an image must use the files that it names itself")
    if found.inner is not None:
        raise UnsupportedImageError(
            f"{word}: is an image in another one; only a file, or a part of one, can be written"
        )
    arguments.output_format = found.image_format or arguments.output_format
    return str(found) if found.is_whole else found


def open_described(
    image: ImageDescription, *, references: AllowedDirectory | None, snapshot: str | None
) -> ImageSource:
    """Open the described image for reading, as open_image() does; references are for files that images name."""
    if image.is_whole:
        return open_image(str(image), format=image.image_format, references=references, snapshot=snapshot)
    with ExitStack() as failure:
        file = _open_file(image, failure, references)
        if (image.image_format or detect_image(file)) == "raw":
            opened: ImageSource = file
        else:
            opened = _with_other_files(file, image, failure, references, snapshot)
        failure.pop_all()
        return opened


def open_described_file(image: str) -> ImageBytes:
    """Open the file of a described image: the bytes of the image itself, which may be a part of a file."""
    assert isinstance(image, ImageDescription)
    with ExitStack() as failure:
        file = _open_file(image, failure, None)
        failure.pop_all()
        return file


def _open_file(image: ImageDescription, opened: ExitStack, references: AllowedDirectory | None) -> ImageBytes:
    """Open the file or disk with the bytes of an image, or of a raw disk; opened closes it."""
    shown: ImageSource
    if image.inner is None:
        shown = open_raw(str(image))
    else:
        shown = open_described(image.inner, references=references, snapshot=None)
    file = cast("ImageBytes", shown.file if isinstance(shown, Qcow2Source) else shown)
    opened.callback(shown.close)
    if image.inner is None and not image.offset and image.length is None:
        return file
    return DescribedRegion(shown, image.offset, _length(shown, image), file=file)


def part_of_disk(disk: Disk, image: str) -> Disk:
    """Return the described part of disk. Raises DoesNotFitError."""
    assert isinstance(image, ImageDescription)
    return Region(disk, image.offset, _length(disk, image), name=disk.name)


def _length(file: Source, image: ImageDescription) -> int:
    """Return the bytes of the described part of file. Raises DoesNotFitError."""
    length = file.size - image.offset if image.length is None else image.length
    if length < 0 or image.offset + length > file.size:
        raise DoesNotFitError(
            f"{file.name}: offset={image.offset},size={length} ends beyond the file, which has {file.size} bytes",
            needed=image.offset + max(length, 0),
            available=file.size,
        )
    return length


def _check_data_file(file: ImageBytes, *, has_one: bool, is_described: bool) -> None:
    if has_one != is_described:
        raise UnsupportedImageError(f"{file.name}: data-file is for an image that has one, and is then required")


def _with_other_files(
    file: ImageBytes,
    image: ImageDescription,
    opened: ExitStack,
    references: AllowedDirectory | None,
    snapshot: str | None,
) -> ImageSource:
    """Open a qcow2 image with the files of the description instead of those that it names."""
    header = read_header(file)
    _check_data_file(file, has_one=header.has_data_file, is_described=image.data_file is not None)
    if header.backing_file is None and image.backing is not None and image.backing is not False:
        raise UnsupportedImageError(f"{file.name}: has no backing file to be replaced")
    if header.backing_file is not None and image.backing is None:
        raise UnsupportedImageError(f"{file.name}: has a backing file; describe it by backing.file.filename=FILE")

    def other(described: ImageDescription) -> ImageSource:
        source = open_described(described, references=references, snapshot=None)
        opened.callback(source.close)
        return source

    backing: ImageSource | None = None
    if header.backing_file is not None:  # a part of no bytes reads as zero
        backing = (
            other(image.backing)
            if isinstance(image.backing, ImageDescription)
            else DescribedRegion(file, 0, 0, file=file)
        )
    data_file = None if image.data_file is None else other(image.data_file)
    closing = ExitStack()
    source = open_qcow2(
        file, header=header, backing=backing, data_file=data_file, snapshot=snapshot, on_close=closing.close
    )
    closing.push(opened.pop_all())
    return source
