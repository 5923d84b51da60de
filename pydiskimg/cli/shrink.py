# SPDX-License-Identifier: MIT
"""pydiskimg shrink: shrink the last partition and its file system, and on request the image's file, too."""

from __future__ import annotations

from pydiskimg.cli.arguments import require_file_name, size_argument
from pydiskimg.cli.output import show
from pydiskimg.cli.references import references
from pydiskimg.cli.volumes_argument import add_changed_disk_arguments
from pydiskimg.errors import InUseError, UnsupportedImageError
from pydiskimg.protocols import read_bytes
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.volumes.shrink import ShrunkVolume

_EXAMPLES = """\
pydiskimg shrink --cut disk.raw              # as small as it can be
pydiskimg shrink --size 100M /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "shrink",
        description="Shrink the ext2, ext3 or ext4 file system in the last partition of an image or disk to SIZE or to "
        "its minimum, and the partition with it; with --cut, the image too. Nothing is mounted. A disk that "
        "is mounted, attached or used by a virtual machine is refused. An interruption loses no file: the "
        "file system is consistent once its journal has been replayed or e2fsck -p has run, and the command "
        "can be run again.",
        examples=_EXAMPLES,
    )
    parser.add_argument(
        "--size",
        type=size_argument,
        metavar="SIZE",
        help="new size of the file system, which stays as it is if it is smaller (default: its minimum)",
    )
    parser.add_argument("--cut", action="store_true", help="let the image end at the end of its last partition")
    add_changed_disk_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Shrink the disk in the arguments."""
    from pydiskimg.cli.interruption import after_interruption  # imported here: they would slow --help down
    from pydiskimg.images.open_disk import open_image_disk
    from pydiskimg.linux.blockdev import is_block_device
    from pydiskimg.volumes.shrink import cut_table, shrink_last_volume, text_of

    require_file_name(arguments.disk)
    if arguments.cut and is_block_device(arguments.disk):
        raise UnsupportedImageError(f"{arguments.disk}: is a block device, which keeps its size; leave out --cut")
    left = f"{arguments.disk} has all of its files; give the command again, after e2fsck -p if it asks for that"
    with after_interruption(left), references(arguments) as policy:
        with open_image_disk(arguments.disk, format=arguments.format, references=policy) as disk:
            image_format = disk.format or "raw"
            shrunk = shrink_last_volume(disk, arguments.size)
            if arguments.cut:
                cut_table(disk, shrunk.end)
            disk.flush()
        if arguments.cut:
            _cut(arguments.disk, shrunk.end, image_format, policy)
    if not arguments.quiet:
        show(_facts(arguments.disk, shrunk), [f"{arguments.disk}: {text_of(shrunk)}"], arguments.output)


def _cut(path: str, end: int, image_format: str, policy: AllowedDirectory | None) -> None:
    """Let the image end at end, unless a program that changed it between our two locks needs more of it now."""
    from pydiskimg.images.open import open_image
    from pydiskimg.images.resize import resize_image
    from pydiskimg.volumes.described_end import LOOK_AT, described_end

    def size(old: int) -> int:
        with open_image(path, format=image_format, references=policy) as source:
            needed = described_end(read_bytes(source, 0, min(LOOK_AT, source.size)))
        if needed > end:
            raise InUseError(
                f"{path}: was changed meanwhile, and needs {needed} bytes now; it was not cut",
                errno=None,
                filename=path,
            )
        return min(old, end)

    resize_image(path, size, format=image_format, shrink=True, references=policy)


def _facts(path: str, shrunk: ShrunkVolume) -> dict[str, object]:
    return {
        "filename": path,
        "partition": shrunk.partition,
        "length-before": shrunk.length_before,
        "length": shrunk.length,
        "type": shrunk.fs_type,
        "file-system-size-before": shrunk.fs_size_before,
        "file-system-size": shrunk.fs_size,
        "end": shrunk.end,
    }
