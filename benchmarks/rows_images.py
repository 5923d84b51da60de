# SPDX-License-Identifier: MIT
"""Images onto devices and into files, compressed and not, through pipes, of few and of very many extents."""

from __future__ import annotations

from benchmarks.rows import Limit, Peer, Row

# A disk that held something else: all of it is written or zeroed. Without the device's own cache, as after a reboot.
DIRTY = (
    "dd if=<(yes) of=$disk_device bs=4M count=$disk oflag=direct iflag=fullblock,count_bytes status=none; "
    "blockdev --flushbufs $disk_device"
)
ZERO = "blkdiscard $disk_device"
NEW = "rm -f new"
_ZEROED = "fallocate --punch-hole --offset 0 --length $disk $disk_device"
_WRITTEN = "dd if=$data of=$disk_device bs=1M oflag=direct conv=notrunc,fsync status=none"
_COPIED = Limit("copying the data", "dd if=$data of=new bs=1M conv=fsync status=none")
_INFLATED = "$python -I $inflate $zlib_clusters"
_SAME = "qemu-img compare -q -f {0} -F {1} ${2} {3}"
_BEST = "-W -m 8"
# With -t it flushes at the end, as ours does; without, it leaves a new file to the kernel.
_INTO_FILE = f"{_BEST} -t writeback"


def _qemu(source: str, options: str, wanted: float) -> tuple[Peer, Peer]:
    """qemu-img onto a device by both caches, as neither is always the faster one."""
    form = "raw" if source == "raw" else "qcow2"
    one, other = (
        Peer(
            f"qemu-img -t {cache}",
            f"qemu-img convert -n {options} {_BEST} -t {cache} -f {form} -O raw ${source} $disk_device",
            wanted,
        )
        for cache in ("none", "writeback")
    )
    return one, other


def _nbdcopy(source: str, options: str = "") -> Peer:
    served = "$raw" if source == "raw" else f"[ qemu-nbd -r -f qcow2 ${source} ]"
    return Peer("nbdcopy", f"nbdcopy --flush {options} -- {served} $disk_device", 1.0, ("nbdcopy", "qemu-nbd"))


def _onto_dirty(source: str, wanted: float, limit: Limit | None) -> Row:
    form = "raw" if source == "raw" else "qcow2"
    return Row(
        f"{source}-to-dirty-device",
        f"{_TITLES[source]} onto a block device full of other data",
        f"pydiskimg convert -n -f {form} ${source} $disk_device",
        (*_qemu(source, "", wanted), _nbdcopy(source)),
        limit,
        before=DIRTY,
        check=_SAME.format(form, "raw", source, "$disk_device"),
    )


def _onto_zero(source: str, wanted: float, *more: Peer, limit: Limit | None) -> Row:
    form = "raw" if source == "raw" else "qcow2"
    return Row(
        f"{source}-to-zero-device",
        f"{_TITLES[source]} onto a block device that reads as zero",
        f"pydiskimg convert -n --target-is-zero -f {form} ${source} $disk_device",
        (*_qemu(source, "--target-is-zero", wanted), _nbdcopy(source, "--destination-is-zero"), *more),
        limit,
        before=ZERO,
        check=_SAME.format(form, "raw", source, "$disk_device"),
    )


def _into_file(source: str, wanted: float | None, *more: Peer, limit: Limit | None = None) -> Row:
    form = "raw" if source == "raw" else "qcow2"
    return Row(
        f"{source}-to-file",
        f"{_TITLES[source]} into a new raw file",
        f"pydiskimg convert -f {form} ${source} new",
        (Peer("qemu-img", f"qemu-img convert {_INTO_FILE} -f {form} -O raw ${source} new", wanted), *more),
        limit,
        before=NEW,
        check=_SAME.format(form, "raw", source, "new"),
    )


def _to_qcow2(name: str, title: str, source: str, options: str, wanted: float, limit: Limit | None = None) -> Row:
    words = f"{options} -f raw -O qcow2 ${source} new"
    return Row(
        name,
        title,
        f"pydiskimg convert {words}",
        (Peer("qemu-img", f"qemu-img convert {_INTO_FILE} {words}", wanted),),
        limit,
        before=NEW,
        check=f"qemu-img check -q new; {_SAME.format('raw', 'qcow2', source, 'new')}",
    )


def _compressed(kind: str) -> Limit:
    return Limit("compressing alone", f"$python -I $deflate {kind} $data", 1.25)


def _through_pipes(name: str, options: str) -> tuple[Row, Row]:
    qemu = f"qemu-img convert {options} {_BEST} -f raw -O qcow2 $raw file"
    made = f"pydiskimg convert {options} -f raw -O qcow2 $raw - > stream"
    return (
        Row(
            f"{name}-to-pipe",
            f"a disk to a pipe as qcow2 ({name}); qemu-img by way of a file",
            f"pydiskimg convert {options} -f raw -O qcow2 $raw - | cat > /dev/null",
            (Peer("qemu-img, cat", f"{qemu}; cat file | cat > /dev/null", 1.0),),
            before="rm -f file",
        ),
        Row(
            f"{name}-from-pipe",
            f"qcow2 ({name}) from a pipe into a new raw file; qemu-img by way of a file",
            "cat stream | pydiskimg convert -f qcow2 - new",
            (
                Peer(
                    "cat, qemu-img",
                    f"cat stream | cat > file; qemu-img convert {_INTO_FILE} -f qcow2 -O raw file new",
                    1.0,
                    ("qemu-img",),
                ),
            ),
            before=f"rm -f new file; [ -e stream ] || {made}",
            check=_SAME.format("raw", "raw", "raw", "new"),
        ),
    )


def _fragmented(name: str, extents: str, title: str, cluster: str, raw: str = "") -> tuple[Row, Row]:
    """Rows of the input extents_qcow2, with clusters of that size, and of extents_raw or the one that is named."""
    raw = raw or f"{extents}_raw"
    return (
        _to_qcow2(
            f"{name}-to-qcow2",
            f"raw with {title} pieces of 4 KiB to qcow2 with clusters of {cluster} KiB",
            raw,
            f"-o cluster_size={cluster}k",
            1.0,
        ),
        Row(
            f"{name}-to-raw",
            f"qcow2 with {title} pieces of 4 KiB in clusters of {cluster} KiB into a new raw file",
            f"pydiskimg convert -f qcow2 ${extents}_qcow2 new",
            (Peer("qemu-img", f"qemu-img convert {_INTO_FILE} -f qcow2 -O raw ${extents}_qcow2 new", 1.0),),
            before=NEW,
            check=_SAME.format("raw", "raw", raw, "new"),
        ),
    )


_TITLES = {"zlib": "qcow2 (zlib)", "zstd": "qcow2 (zstd)", "plain": "qcow2, not compressed,", "raw": "raw"}
_SPARSE_WRITERS = (
    Peer("bmaptool", "bmaptool -q copy --no-verify --bmap $block_map $raw $disk_device", 4.0),
    Peer("dd conv=sparse", "dd if=$raw of=$disk_device bs=1M conv=sparse,notrunc,fsync status=none", 4.0),
)
_COPIES = (
    Peer("cp --sparse=always", "cp --sparse=always --reflink=never $raw new; sync new", 1.0),
    Peer("cp", "cp --reflink=never $raw new; sync new"),
)

ROWS = (
    _onto_dirty("zlib", 1.6, Limit("zeroing all, inflating alone", f"{_ZEROED}; {_INFLATED}", 1.25)),
    _onto_dirty("zstd", 1.4, None),
    _onto_dirty("plain", 1.2, Limit("zeroing all, writing the data", f"{_ZEROED}; {_WRITTEN}", 1.25)),
    _onto_dirty("raw", 1.2, Limit("zeroing all, writing the data", f"{_ZEROED}; {_WRITTEN}", 1.25)),
    _onto_zero("zlib", 2.0, limit=Limit("inflating alone", _INFLATED, 1.25)),
    _onto_zero("zstd", 1.4, limit=None),
    _onto_zero("plain", 1.2, limit=Limit("writing the data", _WRITTEN, 1.25)),
    _onto_zero("raw", 1.2, *_SPARSE_WRITERS, limit=Limit("writing the data", _WRITTEN, 1.25)),
    _into_file("zlib", 1.6, limit=Limit("inflating alone", _INFLATED, 1.25)),
    _into_file("zstd", 1.4),
    _into_file("plain", 1.0, limit=_COPIED),
    _into_file("raw", 1.0, *_COPIES, limit=_COPIED),
    _to_qcow2("compress-zlib", "raw to qcow2 (zlib)", "raw", "-c", 12.0, _compressed("zlib")),
    _to_qcow2("compress-zstd", "raw to qcow2 (zstd)", "raw", "-c -o compression_type=zstd", 1.4, _compressed("zstd")),
    _to_qcow2("raw-to-qcow2", "raw to qcow2, not compressed", "raw", "", 1.0),
    *_through_pipes("uncompressed", ""),
    *_through_pipes("zlib", "-c"),
    *_through_pipes("zstd", "-c -o compression_type=zstd"),
    _to_qcow2("sparse-to-qcow2", "a sparse disk of 20 GiB to qcow2", "sparse", "", 1.0),
    Row(
        "sparse-copy",
        "a sparse disk of 20 GiB into a new raw file",
        "pydiskimg convert -f raw $sparse new",
        (
            Peer("qemu-img", f"qemu-img convert {_INTO_FILE} -f raw -O raw $sparse new", 1.0),
            Peer("cp --sparse=always", "cp --sparse=always --reflink=never $sparse new; sync new", 1.0),
        ),
        before=NEW,
        check=_SAME.format("raw", "raw", "sparse", "new"),
    ),
    *_fragmented("few-extents", "few_extents", "8,192", "4"),
    *_fragmented("many-extents", "many_extents", "131,072", "4"),
    *_fragmented("most-extents", "most_extents", "1,048,576", "4"),
    *_fragmented("padded-extents", "padded_extents", "131,072", "64", raw="many_extents_raw"),
    Row(
        "used-to-zero-device",
        "what an ext4 uses of a raw disk, onto a block device that reads as zero",
        "pydiskimg convert -n --target-is-zero --used -f raw $raw $disk_device",
        (Peer("e2image -ra", "e2image -ra $raw $disk_device; sync $disk_device", 1.0),),
        Limit("writing the data", _WRITTEN),
        before=ZERO,
    ),
    Row(
        "used-to-qcow2",
        "what an ext4 uses of a raw disk, to qcow2",
        "pydiskimg convert --used -f raw -O qcow2 $raw new",
        (Peer("e2image -Qa", "e2image -Qa $raw new; sync new", 1.0),),
        before=NEW,
    ),
    Row(
        "xfs-to-zero-device",
        "a raw disk with XFS onto a block device that reads as zero",
        "pydiskimg convert -n --target-is-zero -f raw $xfs $disk_device",
        (Peer("xfs_copy -d", "xfs_copy -d -L copy.log $xfs $disk_device; sync $disk_device", 1.0),),
        before=f"rm -f copy.log; {ZERO}",
    ),
    Row(
        "write",
        "a raw disk onto a block device and read back",
        "pydiskimg write --yes --quiet --bmap $block_map $raw $disk_device",
        (
            Peer(
                "dd, cmp",
                "dd if=$raw of=$disk_device bs=1M conv=notrunc,fsync status=none; cmp -n $disk $raw $disk_device",
                1.0,
            ),
        ),
        before=DIRTY,
    ),
    Row(
        "compare",
        "raw and qcow2 of the same contents compared",
        "pydiskimg compare -f raw -F qcow2 $raw $plain",
        (Peer("qemu-img", "qemu-img compare -f raw -F qcow2 $raw $plain", 1.0),),
    ),
)
