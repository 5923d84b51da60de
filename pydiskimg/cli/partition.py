# SPDX-License-Identifier: MIT
"""pydiskimg partition: declare its actions, in the words of sfdisk; partition_actions runs them."""

from __future__ import annotations

import argparse

from pydiskimg.cli.arguments import size_argument, uuid_argument
from pydiskimg.cli.options import add_format_option, add_output_option, partition_number
from pydiskimg.cli.other_words import action_meant
from pydiskimg.cli.references import add_references_option
from pydiskimg.partitions.types import names_for
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

# The function of each action, in partition_actions.
_ACTIONS = {"list": "list_partitions", "create": "create", "add": "add", "delete": "delete", "set": "change"}
_TYPES = f"types: {names_for()}; sfdisk's names and aliases of these; a byte such as 0x83 in an MBR, a GUID in a GPT."
_EXAMPLES = """\
pydiskimg partition list disk.qcow2
pydiskimg partition create --label gpt new.raw
pydiskimg partition add --type esp --size 256M --name EFI new.raw
pydiskimg partition add --type root-x86-64 new.raw
pydiskimg partition set --type swap new.raw 2
pydiskimg partition delete new.raw 2
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand and its actions."""
    parser = subparsers.add_parser(
        "partition",
        description="Show, make and change the partition table (MBR or GPT) of an image or disk. Partitions start and "
        "end at whole MiB unless --start and --size say otherwise, and their contents are not touched. A disk "
        "that is mounted, attached or used by a virtual machine is refused. An interruption leaves the old or "
        "the new table. With --output json each action prints the table that it leaves, and add the new number.",
        epilog=_TYPES,
        examples=_EXAMPLES,
    )
    parser.other_word = action_meant
    actions = parser.add_subparsers(metavar="ACTION", required=True, help="one of these; each has a --help of its own")
    _add_list(actions)
    _add_create(actions)
    _add_add(actions)
    _add_delete(actions)
    _add_set(actions)


def _action(actions: Any, name: str, text: str, examples: str) -> argparse.ArgumentParser:
    def run(arguments: argparse.Namespace) -> None:
        from pydiskimg.cli import partition_actions  # imported here: --help needs neither disks nor libparted

        getattr(partition_actions, _ACTIONS[name])(arguments)

    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=text, description=f"{text[0].upper()}{text[1:]}.", examples=examples
    )
    add_format_option(parser)
    add_references_option(parser)
    add_output_option(parser)
    parser.set_defaults(run=run, parser=parser)
    return parser


def _add_list(actions: Any) -> None:
    examples = "pydiskimg partition list disk.qcow2\npydiskimg partition list --output json disk.raw"
    parser = _action(actions, "list", "show the partitions of a disk", examples)
    _add_disk(parser)


def _add_create(actions: Any) -> None:
    examples = "pydiskimg partition create new.raw\npydiskimg partition create --label gpt --force disk.raw"
    parser = _action(actions, "create", "make a partition table without partitions", examples)
    label = "kind of table (default: dos below 2 TiB; msdos and mbr: the same)"
    parser.add_argument("--label", type=_label, choices=("dos", "gpt"), help=label)
    parser.add_argument("--id", dest="disk_id", metavar="ID", help="UUID of a GPT, or 0x12345678 of an MBR")
    parser.add_argument("--force", action="store_true", help="overwrite what the disk holds")
    _add_disk(parser)


def _label(text: str) -> str:
    """Return sfdisk's name of a kind of table where text is parted's, or the common one, in any case."""
    word = text.lower()
    return "dos" if word in ("msdos", "mbr") else word


def _add_add(actions: Any) -> None:
    examples = (
        "pydiskimg partition create --label gpt new.raw\n"
        "pydiskimg partition add --type esp --size 256M --name EFI new.raw\n"
        "pydiskimg partition add --start 300M --size 100M new.raw"
    )
    parser = _action(actions, "add", "add a partition", examples)
    parser.add_argument(
        "--start", type=size_argument, metavar="OFFSET", help="first byte (default: the first fit in free space)"
    )
    parser.add_argument(
        "--size", type=size_argument, metavar="SIZE", help="size, such as 512M (default: all of the free space)"
    )
    parser.add_argument(
        "--number", type=partition_number, metavar="N", help="number of the partition (default: the first free one)"
    )
    parser.add_argument("--logical", action="store_true", help="put it into the extended partition of an MBR")
    _add_change_options(parser, is_new=True)
    _add_disk(parser)


def _add_delete(actions: Any) -> None:
    examples = "pydiskimg partition delete disk.raw 2"
    parser = _action(actions, "delete", "remove partitions from the table; their contents stay", examples)
    _add_disk(parser)
    parser.add_argument("numbers", metavar="N", nargs="+", type=partition_number, help="number of a partition")


def _add_set(actions: Any) -> None:
    examples = "pydiskimg partition set --type swap disk.raw 2\npydiskimg partition set --bootable disk.raw 1"
    parser = _action(actions, "set", "change type, name, UUID or boot flag of a partition", examples)
    _add_change_options(parser, is_new=False)
    _add_disk(parser)
    parser.add_argument("number", metavar="N", type=partition_number, help="number of the partition")


def _add_disk(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("disk", metavar="DISK", help="disk image or block device")


def _add_change_options(parser: argparse.ArgumentParser, *, is_new: bool) -> None:
    kind, uuid = (" (default: linux)", " (default: a random one)") if is_new else ("", "")
    parser.add_argument("--type", metavar="TYPE", help=f"a type that pydiskimg partition --help lists{kind}")
    parser.add_argument("--name", metavar="NAME", help="name in a GPT")
    parser.add_argument("--uuid", metavar="UUID", type=_uuid, help=f"UUID in a GPT{uuid}")
    parser.add_argument("--bootable", action=argparse.BooleanOptionalAction, help="boot flag for a BIOS")


def _uuid(text: str) -> str:
    return str(uuid_argument(text))
