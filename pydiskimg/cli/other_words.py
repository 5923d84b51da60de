# SPDX-License-Identifier: MIT
"""Commands and options that users of other tools try, and what pydiskimg has in their place: for messages of errors."""

from __future__ import annotations

# The command for a first word that is not one of ours; those of virt-* that have the same name are not listed.
_COMMANDS = {
    "convert": "cp",
    "cat": "head tail virt-tail",
    "ls": "dir find tree",
    "copy-in": "edit virt-edit put upload",
    "copy-out": "get download",
    "sparsify": "zerofree fstrim trim discard",
    "df": "du",
    "write": "copy bmaptool",
    "grow": "resize2fs growpart expand virt-resize",
    "partition": "sfdisk parted fdisk sgdisk gdisk cfdisk",
    "partition create": "mklabel mktable",
    "partition add": "mkpart",
    "partition list": "print",
    "filesystems": "blkid lsblk inspect list virt-inspector virt-list-filesystems virt-list-partitions",
    "check": "fsck e2fsck",
    "hash": "sha256sum checksum",
    "mkfs": "mke2fs mkfs.ext2 mkfs.ext3 mkfs.ext4 format",
    "build": "virt-make-fs virt-builder mkosi",
}
# The action for one of parted or sfdisk.
_ACTIONS = {
    "list": "print show dump",
    "create": "mklabel mktable new",
    "add": "mkpart append",
    "delete": "rm remove",
    "set": "name type toggle change flag",
    "pydiskimg grow or pydiskimg shrink": "resize resizepart",
}

_VIRT = "filesystems df ls cat diff sparsify copy-in copy-out tar-in tar-out"
_IN_PLACE = "IMAGE is changed in place; pydiskimg convert --used makes a copy, with -c a compressed one"
_OVERLAY = "try it on an overlay: pydiskimg create -f qcow2 -b IMAGE -F FORMAT OVERLAY"
_CHANGE = "grow shrink sparsify resize partition-create partition-add partition-delete partition-set copy-in tar-in rm"
_JSON = "info map compare check snapshot measure write hash show filesystems df grow shrink sparsify mkfs mkswap build "
_JSON += "ls stat diff partition-list partition-create partition-add partition-delete partition-set"
_TAR = "--compress -z --gzip -J --xz -j --bzip2"
# Commands, options that they do not have ("": one more operand), and why, or what to use.
_OPTIONS = (
    (_VIRT, "-d --domain -c --connect -D", "guests of libvirt are not looked up; name the image of their disk"),
    (_VIRT, "-v --verbose -x", "no virtual machine is started that would print messages"),
    (_VIRT, "--key --keys-from-stdin --echo-keys", "encrypted partitions are not opened"),
    (_VIRT, "--blocksize", "the size of sectors is found in the partition table"),
    ("ls cat diff copy-in copy-out tar-in tar-out", "-m --mount", "a partition is /dev/sda1, or --partition 1"),
    (
        "filesystems",
        "--lvs --logvols --logical-volumes --pvs --physvols --physical-volumes --vgs --volgroups --volume-groups",
        "LVM is not read; --all lists the partitions that contain it",
    ),
    ("filesystems", "", "one image is listed at a time"),
    ("df", "-P --one-per-guest", "one image after the other is read, without a virtual machine"),
    ("df", "--uuid", "guests of libvirt have that; for file systems: pydiskimg filesystems -l --uuid"),
    ("diff", "--atime", "times of the last access are not compared"),
    ("diff", "--csv", "--output json is for programs"),
    ("diff", "--dir-links", "the numbers of links of directories are not compared"),
    ("diff", "--dir-times", "--times compares the times of directories, too"),
    ("diff", "--extra-stats", "pydiskimg stat prints all metadata of a file"),
    ("diff", "--time-t --time-days --time-relative", "--times compares times, which are not printed"),
    (_JSON, "-j -J --json", "--output json is for programs"),
    ("stat", "-c --printf", "--output json is for programs"),
    (_CHANGE, "-n --dry-run --no-act --simulate", _OVERLAY),
    ("write", "-n --dry-run", "on a terminal, what would be overwritten is shown before the question"),
    ("check", "-n --dry-run", "nothing is changed without -r"),
    ("check", "-y -a --fix", "-r all repairs a qcow2 image"),
    ("mkfs", "-F", "--force overwrites what DISK contains"),
    ("mkfs", "-j", "-t ext3 and -t ext4 have a journal"),
    ("mkfs", "-d", "pydiskimg tar-in and copy-in bring files into a file system, pydiskimg build makes a whole system"),
    ("show", "--svg", "-o FILE writes SVG"),
    ("sparsify", "--compress --convert -o --tmp --check-tmpdir", _IN_PLACE),
    ("sparsify", "", _IN_PLACE),
    ("sparsify", "--zero --ignore", "all ext file systems and swap areas of IMAGE are treated"),
    ("grow", "--expand --resize --resize-force --LV-expand --output-format", "the last partition grows, in place"),
    ("grow", "", "the last partition grows, to the end of the disk"),
    ("grow", "--shrink", "pydiskimg shrink makes the last partition smaller"),
    ("shrink", "-M", "the minimum is the default"),
    ("shrink", "", "the new size is named by --size"),
    ("write", "--bmap-sig --no-sig-verify", "signatures of block maps are not checked"),
    ("write", "--psplash-pipe", "-p prints progress"),
    ("tar-in", _TAR, "the compression of TARBALL is detected"),
    ("tar-out", _TAR, "give - as TARBALL, and let gzip or xz compress standard output"),
    ("rm mkdir stat show hash bmap sparsify grow shrink", "--add -a", "the image is named without an option"),
    ("ls", "-a -A -1", "all files are listed, one on a line"),
    ("copy-in copy-out", "-r -R --recursive", "directories are always copied with everything in them"),
    ("rm", "-R", "-r removes directories"),
    ("df", "-k --block-size", "blocks have 1024 bytes; -h prints sizes with units"),
    ("df", "-T --print-type", "pydiskimg filesystems -l prints types"),
    ("hash", "-c --check", "pydiskimg compare compares two images"),
    ("bmap", "", "pydiskimg bmap IMAGE makes a map, and pydiskimg write IMAGE DEVICE copies by one"),
    ("partition-create", "", "the kind of table is named by --label"),
    ("partition-add", "", "--type, --start and --size say what and where"),
    ("partition-add", "--end", "--size names the size"),
    ("partition-set", "", "what changes is named by options, such as --type esp"),
    ("partition-set", "--size --start --end", "pydiskimg grow and pydiskimg shrink change the last partition"),
    ("partition-delete", "-a --all", "name the numbers; pydiskimg partition create --force makes a new table"),
    ("partition", "-l --list -d --dump", "use: pydiskimg partition list DISK"),
    ("partition", "-J -j --json", "use: pydiskimg partition list --output json DISK"),
    ("partition", "-X --label", "use: pydiskimg partition create --label KIND DISK"),
    ("partition", "-a --append", "use: pydiskimg partition add DISK"),
    ("partition", "--delete", "use: pydiskimg partition delete DISK N"),
    ("partition", "-A --activate", "use: pydiskimg partition set --bootable DISK N"),
    ("partition", "--part-type", "use: pydiskimg partition set --type TYPE DISK N"),
    ("partition", "--part-uuid", "use: pydiskimg partition set --uuid UUID DISK N"),
    ("partition", "--part-label", "use: pydiskimg partition set --name NAME DISK N"),
)


def why_not(command: str, option: str) -> str:
    """Return why a command, such as "partition add", lacks an option of another tool, or what to use; empty if unknown.

    The option "" stands for one operand too many.
    """
    if option in ("-V", "--version"):
        return "pydiskimg --version prints the version"
    word = command.replace(" ", "-")
    for commands, options, reason in _OPTIONS:
        if word in commands.split() and (option in options.split() or option == options):
            return reason
    return ""


def command_meant(word: str) -> str:
    """Return the command of ours for one of another tool; empty if none is known."""
    return _key_of(word, _COMMANDS)


def action_meant(word: str) -> str:
    """Return what changes a partition table as an action of parted or sfdisk does; empty if nothing is known."""
    return _key_of(word, _ACTIONS)


def _key_of(word: str, table: dict[str, str]) -> str:
    return next((key for key, words in table.items() if word in words.split()), "")
