# SPDX-License-Identifier: MIT
"""File systems: made, filled from a tarball, read without a mount, checked; and archives unpacked."""

from __future__ import annotations

from benchmarks.inputs import TAR
from benchmarks.programs import mke2fs_takes_tarballs
from benchmarks.rows import Limit, Peer, Row

_TAR = " ".join(TAR)
# It begins as our own programs do. -I: the installed modules, which are compiled, as the other programs are. argv[3] is
# the number of bytes for each inode.
POPULATE = (
    "import sys; from pydiskimg import open_disk, open_tar, populate\n"
    "from pydiskimg.linux.stdio import begin_process; begin_process()\n"
    "with open_disk(sys.argv[2], writable=True) as disk, open_tar(sys.argv[1]) as entries:\n"
    " populate(disk, entries, bytes_per_inode=int(sys.argv[3]) if sys.argv[3:] else None)"
)
_EXTRACT = "import sys; from pydiskimg.files.tar import extract; extract(sys.argv[1], sys.argv[2])"
_RESTORE = (
    "import os, sys; from pydiskimg import open_dump, restore_dump; "
    "restore_dump(open_dump(os.open(sys.argv[1], os.O_RDONLY), sys.argv[1]), sys.argv[2])"
)
_UUID = "11111111-2222-3333-4444-555555555555"


def _mounted(archive: str, program: str, make: str = "mke2fs -q -F -t ext4") -> str:
    unpacked = f"tar -xpf ${archive} -I {program} {_TAR} -C $point"
    return f"{make} new; mount -o loop new $point; {unpacked}; umount $point"


def _populate(archive: str, title: str, size: str, density: str = "", virtual_size: str = "") -> Row:
    # virt-make-fs cannot make more inodes than its file system's size gives.
    make = f"mke2fs -q -F -t ext4 {f'-i {density}' if density else ''}"
    tree = f"mkdir again; tar -xzpf ${archive} {_TAR} -C again; {make} -d again new; rm -r again; sync new"
    return Row(
        f"populate-{archive}",
        f"{title} as a tarball to ext4 in a file",
        f"$python -I -c '{POPULATE}' ${archive} new {density}",
        (
            Peer("mke2fs, mount, tar", _mounted(archive, "gzip", make), 1.7, ("mke2fs", "tar", "mount")),
            Peer("mke2fs, mount, tar, pigz", _mounted(archive, "pigz", make), 1.0, ("mke2fs", "pigz", "mount")),
            Peer("tar, mke2fs -d", tree, 2.2, ("mke2fs", "tar")),
            Peer(
                "mke2fs -d TARBALL",
                f"{make} -d ${archive} new; sync new",
                2.2,
                when=mke2fs_takes_tarballs,
            ),
            Peer(
                "virt-make-fs",
                f"virt-make-fs -t ext4 -s ${virtual_size or size} ${archive} made",
                None,
                _VIRT,
                rounds=1 if virtual_size else None,
            ),
        ),
        Limit("inflating alone", f"$python -I $inflate ${archive}"),
        before=f"rm -rf new again made; truncate -s ${size} new",
        check="e2fsck -fn new",
    )


def _build(form: str) -> Row:
    piped = (
        f"mkdir again; tar -xzpf $debian {_TAR} -C again; echo 'UUID={_UUID} / ext4 errors=remount-ro 0 1' > "
        "again/etc/fstab; echo built > again/etc/hostname; truncate -s $system new; sfdisk -q new <<< '2048,,83,*'; "
        f"mke2fs -q -F -t ext4 -b 4096 -U {_UUID} -E offset=1048576 -d again new $(($system / 4096 - 256)); sync new; "
        "rm -r again"
    )
    if form == "qcow2":
        piped += "; qemu-img convert -W -m 8 -t writeback -f raw -O qcow2 new new.qcow2"
    return Row(
        f"build-{form}",
        f"a Debian's tarball to a bootable disk ({form}); the others without a boot loader",
        f"pydiskimg build $debian new -O {form} --size $system --hostname built",
        (Peer("tar, sfdisk, mke2fs -d", piped, 1.7, ("sfdisk", "mke2fs", "tar")),),
        Limit("inflating alone", "$python -I $inflate $debian"),
        before="rm -rf new new.qcow2 again",
    )


def _make(size: str, kind: str, block: str = "") -> Row:
    options = f"-t {kind} {f'-b {block}' if block else ''}"
    return Row(
        f"mkfs-{kind}-{size}{f'-{block}' if block else ''}".lower(),
        f"{kind} of {size}{f' with blocks of {block} bytes' if block else ''} made in a sparse file",
        f"pydiskimg mkfs {options} new",
        (
            Peer("mke2fs", f"mke2fs -F -q {options} new"),
            *((Peer("mkfs.xfs", "mkfs.xfs -q new"),) if size == "1T" and not block else ()),
        ),
        before=f"rm -f new; truncate -s {size} new",
        check="e2fsck -fn new",
    )


def _tar_out(system: str, title: str, virtual_rounds: int | None = None) -> Row:
    # Through cat, since GNU tar reads no file if its output is /dev/null.
    packed = f"tar -C $point {_TAR} --format=pax -S -cf - . | cat > /dev/null"
    return Row(
        f"tar-out-{system.removesuffix('_ext4')}",
        f"{title} of an ext4 as a tar archive to a pipe",
        f"pydiskimg tar-out ${system} / - | cat > /dev/null",
        (
            Peer("mount, tar", f"mount -o loop,ro ${system} $point; {packed}; umount $point", 1.0, ("mount", "tar")),
            Peer("virt-tar-out", f"virt-tar-out -a ${system} / - | cat > /dev/null", 1.0, _VIRT, rounds=virtual_rounds),
        ),
    )


def _extract(archive: str, title: str) -> Row:
    return Row(
        f"extract-{archive.replace('_', '-')}",
        f"{title} unpacked into a directory",
        f"mkdir target; $python -I -c '{_EXTRACT}' ${archive} target; sync -f target",
        (Peer("GNU tar", f"mkdir target; tar -xpf ${archive} {_TAR} -C target; sync -f target", 1.0, ("tar",)),),
        before="rm -rf target",
    )


_VIRT = ("virt-make-fs", "virt-tar-out", "/boot/vmlinuz*")
_DUMPED = "mke2fs -q -F -t ext4 new; mount -o loop new $point; {}; umount $point"  # both make and mount equally fast

ROWS = (
    _populate("debian", "a whole Debian", "system"),
    _populate("million", "a million small files", "files_system", "4096", "sparse_size"),
    _build("raw"),
    _build("qcow2"),
    _make("64M", "ext2"),
    _make("10G", "ext3"),
    _make("10G", "ext4"),
    _make("1T", "ext4"),
    _make("1T", "ext4", "1024"),
    _make("15T", "ext4"),
    _tar_out("debian_ext4", "a whole Debian"),
    _tar_out("million_ext4", "a million small files", 1),
    Row(
        "cat",
        "a small file of an ext4 to standard output; debugfs with the start of Python",
        "pydiskimg cat $debian_ext4 /etc/passwd",
        (
            Peer("debugfs, python", "debugfs -R 'cat /etc/passwd' $debian_ext4; $python -c pass", 1.0, ("debugfs",)),
            Peer("virt-cat", "virt-cat -a $debian_disk /etc/passwd", 10.0, _VIRT),
        ),
        times_as_many_rounds=4,
    ),
    Row(
        "check-ext4",
        "the file system of a whole Debian checked",
        "pydiskimg check -f raw $debian_ext4",
        (Peer("e2fsck -fn", "e2fsck -fn $debian_ext4"),),
    ),
    _extract("debian_tar", "a Debian's tarball, not compressed,"),
    _extract("debian", "a Debian's tarball (gzip)"),
    _extract("debian_xz", "a Debian's tarball (xz)"),
    Row(
        "restore",
        "a dump (dump -z9) restored into a new ext4",
        _DUMPED.format(f"$python -I -c '{_RESTORE}' $debian_dump $point"),
        (Peer("restore -r", _DUMPED.format("(cd $point; restore -r -f $debian_dump)"), 1.0, ("restore",)),),
        before="rm -f new; truncate -s $system new",
    ),
    Row(
        "sparsify",
        "the free blocks of a disk that was full of other data punched out",
        "pydiskimg sparsify -q full",
        (
            Peer("zerofree, fallocate -d", "zerofree full; fallocate --dig-holes full; sync full", 1.0, ("zerofree",)),
            Peer("virt-sparsify", "virt-sparsify -q --in-place --format raw full", 10.0, ("virt-sparsify", *_VIRT)),
        ),
        before="cp --sparse=never $debian_ext4 full",
    ),
)
