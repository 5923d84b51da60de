# SPDX-License-Identifier: MIT
"""pydiskimg grow: grow the last partition of a disk and its file system to the disk's end, without a copy."""

from __future__ import annotations

from pydiskimg.cli.arguments import require_file_name
from pydiskimg.cli.output import show
from pydiskimg.cli.references import references
from pydiskimg.cli.volumes_argument import add_changed_disk_arguments
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from typing import Any

    from pydiskimg.volumes.grow import VolumeGrowth

_EXAMPLES = """\
pydiskimg resize disk.qcow2 +10G && pydiskimg grow disk.qcow2
pydiskimg grow /dev/vg/disk
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    parser = subparsers.add_parser(
        "grow",
        description="Grow the last partition of an image or disk, and the file system in it, to the end of the disk, "
        "as growpart and resize2fs do; on a disk without partitions, grow its file system. ext2, ext3 and ext4 "
        "are not mounted; xfs and btrfs grow only while they are mounted, which needs root and a raw disk. If "
        "nothing can grow, a sentence says so and nothing is changed. A disk that is mounted, attached or "
        "used by a virtual machine is refused. An interruption leaves the old or the new partition table, and "
        "a file system that is consistent once its journal has been replayed or e2fsck -p has run.",
        examples=_EXAMPLES,
    )
    parser.add_argument("--no-mount", action="store_true", help="leave xfs and btrfs as they are")
    add_changed_disk_arguments(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    """Grow the disk in the arguments."""
    require_file_name(arguments.disk)
    grown = _grown(arguments)
    if not arguments.quiet:
        show(_facts(arguments.disk, grown), [grown.text], arguments.output)


def _grown(arguments: argparse.Namespace) -> VolumeGrowth:
    from pydiskimg.cli.interruption import after_interruption  # imported here: they would slow --help down
    from pydiskimg.disks.descriptor import DescriptorDisk
    from pydiskimg.images.open_disk import open_image_disk
    from pydiskimg.volumes.grow import grow_last_volume

    with (
        after_interruption(f"{arguments.disk} is as good as before; give the command again to finish"),
        references(arguments) as policy,
        open_image_disk(arguments.disk, format=arguments.format, references=policy) as disk,
    ):
        is_shown = isinstance(disk, DescriptorDisk)  # file systems in a qcow2 cannot be mounted
        return grow_last_volume(disk, may_mount=is_shown and not arguments.no_mount)


def _facts(path: str, grown: VolumeGrowth) -> dict[str, object]:
    facts: dict[str, object] = {"filename": path, "grown": grown.has_grown, "text": grown.text}
    if grown.has_grown:
        facts |= {
            "partition": grown.partition,
            "length-before": grown.length_before,
            "length": grown.length,
            "type": grown.fs_type,
            "file-system-size-before": grown.fs_size_before,
            "file-system-size": grown.fs_size,
        }
    return facts
