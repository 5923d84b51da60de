# SPDX-License-Identifier: MIT
"""The verbs of the OS definition against the commands of ganeti-instance-image 0.7, without its scripts' other work.

The temporary files of the old commands are in $temporary, and removing them is part of their time.
"""

from __future__ import annotations

from benchmarks.rows import Limit, Peer, Row

_SIZES = {"guest": ("disk", "4 GiB"), "large_guest": ("large", "10 GiB")}
_NIC = (
    "NIC_0_MAC=aa:00:00:11:22:33 NIC_0_IP=192.0.2.10 NIC_0_NETWORK_SUBNET=192.0.2.0/24 NIC_0_NETWORK_GATEWAY=192.0.2.1"
)


def _verb(verb: str, node: str, device: str, more: str = "NIC_COUNT=0") -> str:
    """A call of the installed verb, as Ganeti makes it."""
    return (
        "env -i PATH=$PATH LC_ALL=C OS_API_VERSION=20 OS_NAME=image INSTANCE_NAME=inst1.example.org HYPERVISOR=kvm "
        f"INSTANCE_BE_maxmem=128 INSTANCE_HV_kernel_path= DISK_COUNT=1 DISK_0_PATH={device} DISK_0_ACCESS=rw {more} "
        f"{verb.upper()}_DEVICE={device} {verb.upper()}_DISK_PATH={device} {verb.upper()}_INDEX=0 "
        f"$python -I -m ganeti_os --sysconfdir $node_{node}/etc --localstatedir $node_{node}/var {verb}"
    )


def _old_export(guest: str, way: str) -> str:
    if way == "qemu-img":
        return f"qemu-img convert -f raw -O qcow2 -W -m 8 ${guest}_device disk.img; tar -cf - ."
    dumps = "; ".join(f"dump -0 -q -z9 -f {name}.dump ${guest}_{name}" for name in ("root", "boot"))
    return f"{dumps}; tar -cf - ."


def _aside(command: str) -> str:
    return f"cd $temporary; {command}; rm -rf $temporary/*"


def _export(guest: str, kind: str, *wanted: float | None) -> Row:
    return Row(
        f"export-{kind}-{_SIZES[guest][1].split()[0]}g",
        f"export ({kind}) of an instance's disk of {_SIZES[guest][1]} to a pipe",
        f"{_verb('export', kind, f'${guest}_device')} | cat > /dev/null",
        tuple(
            Peer(f"{way}, tar", _aside(f"({_old_export(guest, way)}) | cat > /dev/null"), factor, (way, "tar"))
            for way, factor in zip(("qemu-img", "dump"), wanted, strict=True)
        ),
    )


def _import(guest: str, kind: str, *wanted: float | None) -> Row:
    size = _SIZES[guest][0]
    device = f"${size}_device"
    kept = [f"[ -e new.backup ] || {_verb('export', kind, f'${guest}_device')} > new.backup"]
    kept += [
        f"[ -e old.{way} ] || (here=$PWD; cd $temporary; ({_old_export(guest, way)}) > $here/old.{way}; rm -rf ./*)"
        for way in ("qemu-img", "dump")
    ]
    qemu = "cat old.qemu-img | (cd $temporary; tar -xf -); cd $temporary; "
    qemu += f"qemu-img convert -n -W -m 8 -t writeback -f qcow2 -O raw disk.img {device}; rm -rf ./*"
    restore = "here=$PWD; cd $temporary; cat $here/old.dump | tar -xf -; mkdir m; "
    for name, start, length, form in (
        ("root", "229M", f"$((${size} - 229 * 1048576))", "ext4"),
        ("boot", "1M", "100M", "ext3"),
    ):
        restore += (
            f"d=$(losetup --find --show --offset {start} --sizelimit {length} {device}); mkfs.{form} -q -F $d; "
            f"mount $d m; (cd m; restore -r -y -f ../{name}.dump); umount m; losetup --detach $d; "
        )
    return Row(
        f"import-{kind}-{_SIZES[guest][1].split()[0]}g",
        f"import ({kind}) of an instance's disk of {_SIZES[guest][1]} from a pipe",
        f"cat new.backup | {_verb('import', kind, device)}",
        (
            Peer("tar, qemu-img", qemu, wanted[0], ("qemu-img",)),
            Peer("tar, restore", f"{restore} rm -rf ./*", wanted[1], ("restore",)),
        ),
        before="; ".join(kept),
        check=f"e2fsck -fn {device}?offset=$((229 * 1048576))",
    )


def _create(name: str, what: str, ours: str, without: str, more: str) -> Row:
    disk = "$PWD/instance"
    return Row(
        name,
        what,
        _verb("create", ours, disk, more),
        limit=Limit("the same without it", _verb("create", without, disk, more)),
        before="rm -f instance; truncate -s $system instance",
    )


ROWS = (
    _export("guest", "none", 4.5, 4.5),
    _export("guest", "zlib", None, 3.0),
    _export("guest", "zstd", None, 3.0),
    _export("large_guest", "none", 6.0, 6.0),
    _export("large_guest", "zlib", None, 3.0),
    _export("large_guest", "zstd", None, 3.0),
    *(_import(guest, kind, 2.0, 2.0) for guest in _SIZES for kind in ("none", "zlib", "zstd")),
    _create(
        "create-identity",
        "create from a disk image, with its identity (name, network, keys)",
        "identity_yes",
        "identity_no",
        f"NIC_COUNT=1 {_NIC}",
    ),
    _create("create-boot-loader", "create from a tarball, with GRUB", "loader_auto", "loader_none", "NIC_COUNT=0"),
)
