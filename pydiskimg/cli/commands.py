# SPDX-License-Identifier: MIT
"""The table of all subcommands, with the line that --help has for each; the parsers of none of them are imported."""

from __future__ import annotations

GROUPS = {
    "images": {
        "info": "describe an image",
        "convert": "copy an image to a file, block device or pipe",
        "create": "make an empty image",
        "map": "list where the data of an image is stored",
        "compare": "compare two images",
        "dd": "copy a part of an image to a new one",
        "check": "check a qcow2 image, or the ext file systems of a raw disk",
        "bitmap": "change the dirty bitmaps of an image",
        "snapshot": "list, take, apply or delete internal snapshots",
        "resize": "make an image larger or smaller",
        "measure": "compute how large a new image will be",
        "commit": "write the contents of an image into its backing file",
        "rebase": "give an image another backing file",
        "amend": "change options of a qcow2 image",
        "write": "write an image to a device and read it back",
        "bmap": "make a block map of an image",
        "hash": "print a checksum of the guest's data",
    },
    "partitions and file systems": {
        "show": "draw a disk to scale",
        "filesystems": "list the file systems and partitions of an image",
        "df": "show how much of each file system is in use",
        "partition": "show, make and change a partition table",
        "grow": "grow the last partition and its file system",
        "shrink": "shrink the last partition and its file system",
        "sparsify": "punch holes where file systems are free",
        "mkfs": "make an ext2, ext3 or ext4 file system",
        "mkswap": "make a swap area",
        "build": "make a bootable disk from a tarball or directory",
    },
    "files in an image": {
        "ls": "list files",
        "cat": "print files",
        "stat": "show all metadata of files",
        "diff": "list the files that differ between two images",
        "copy-out": "copy files out of an image",
        "tar-out": "pack a directory as a tar archive",
        "copy-in": "copy files into an image",
        "tar-in": "unpack a tar archive into an image",
        "rm": "remove files",
        "mkdir": "make directories",
    },
}
COMMANDS = {name: text for group in GROUPS.values() for name, text in group.items()}

DESCRIPTION = (
    "Read, make, copy, check and change disk images (raw and qcow2), and the partitions, file systems and files in "
    "them. No other program is started, and most commands need no root."
)
EXIT_STATUS = (
    "Exit status: 0 done, 1 failed, 2 wrong usage (1 where qemu-img has the subcommand), 128 + N ended by signal N "
    "(130 SIGINT, 143 SIGTERM); compare, check and diff have others, which their --help lists."
)
# What qemu-img has and pydiskimg does not, and why: --help prints it, in the words of docs/commands.md.
LEFT_OUT_SUBCOMMANDS = {"bench": "it measures QEMU's own block layer"}
