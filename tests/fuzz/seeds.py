# SPDX-License-Identifier: MIT
"""The images that the fuzzer changes: made by qemu-img and qemu-io, and by pydiskimg; small."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path

from pydiskimg.images.create import new_image
from pydiskimg.transfer.send import write_stream
from tests.fixtures.dense_images import ALTERNATING, ZERO_BETWEEN, dense
from tests.fixtures.hostile_descriptions import with_luks
from tests.fixtures.qcow2_images import BytesSource, run

# Name, virtual size, options of qemu-img create, features that need more than options.
_SHAPES = (
    ("v2-512", 150_000, "compat=0.10,cluster_size=512", ""),
    ("v2-64k", 1 << 20, "compat=0.10", "compressed snapshots"),
    ("v3-512", 300_032, "cluster_size=512", "compressed snapshots"),
    ("v3-4k", 1_000_448, "cluster_size=4096", "compressed snapshots backing"),
    ("v3-4k-zstd", 1_234_944, "cluster_size=4096,compression_type=zstd", "compressed"),
    ("v3-64k", 2 << 20, "cluster_size=65536", "compressed snapshots"),
    ("v3-64k-zstd", 1_500_160, "compression_type=zstd", "compressed backing"),
    ("v3-64k-lazy", 1 << 20, "lazy_refcounts=on", ""),
    ("v3-refcount-1", 1 << 20, "refcount_bits=1,cluster_size=4096", "compressed"),
    ("v3-refcount-64", 1 << 20, "refcount_bits=64,cluster_size=4096", "snapshots"),
    ("v3-preallocated", 600_064, "preallocation=metadata", ""),
    ("v3-2m", 5 << 20, "cluster_size=2M", "compressed"),
    ("extended", 900_096, "extended_l2=on,cluster_size=16384", "compressed snapshots"),
    ("extended-64k", 2 << 20, "extended_l2=on", "backing"),
    ("data-file", 1 << 20, "cluster_size=4096,data_file=data.raw", ""),
    ("data-file-raw", 700_416, "cluster_size=512,data_file=data.raw,data_file_raw=on", "bitmaps"),
    ("data-file-extended", 900_096, "extended_l2=on,cluster_size=16384,data_file=data.raw", "backing"),
    ("bitmaps", 1 << 20, "cluster_size=4096", "bitmaps snapshots"),
)

# The fixed part of a LUKS header, whose key slots are left empty; QEMU takes long to make one.
_LUKS = b"LUKS\xba\xbe\0\1" + b"".join(word.ljust(32, b"\0") for word in (b"aes", b"xts-plain64", b"sha256"))


def make_seeds(directory: Path) -> dict[str, bytes]:
    """Make all of them in directory; returns their contents by name."""
    (directory / "base.raw").write_bytes(random.Random(1).randbytes(1 << 16) * 24)
    with chdir(directory):  # what the images name is beside them
        seeds = {name: _by_qemu(directory, name, size, options, more) for name, size, options, more in _SHAPES}
    seeds["luks"] = with_luks(magic=_LUKS)
    seeds["dense"] = dense()  # 1 MiB, two million extents
    seeds["dense-small"] = dense(1, data=b"abc" * 5000, bitmap=ALTERNATING | ZERO_BETWEEN, disk=8 << 20)
    seeds.update(_by_us(directory))
    return seeds


def _by_qemu(directory: Path, name: str, size: int, options: str, more: str) -> bytes:
    rng = random.Random(name)
    path = directory / name
    backing = ["-b", "base.raw", "-F", "raw"] if "backing" in more else []
    run("qemu-img", "create", "-q", "-f", "qcow2", *backing, "-o", options, str(path), str(size))
    _write(path, _commands(rng, size, 2 << 20 if "2M" in options else 65536, compressed="compressed" in more))
    if "bitmaps" in more:
        run("qemu-img", "bitmap", "--add", str(path), "b0")
    if "snapshots" in more:
        run("qemu-img", "snapshot", "-c", "first", str(path))
        _write(path, _commands(rng, size, 20000, compressed=False))
        run("qemu-img", "snapshot", "-c", "second one", str(path))
        _write(path, _commands(rng, size, 5000, compressed=False)[:3])
    return path.read_bytes()


def _commands(rng: random.Random, size: int, longest: int, *, compressed: bool) -> list[str]:
    """Compressed writes come first: QEMU 7.2 corrupts an image that gets them after others."""
    commands = []
    if compressed:
        starts = range(0, size - longest, 4 * longest)
        commands += [f"write -c -P {rng.randrange(256)} {start} {longest}" for start in starts]
    for _ in range(8):
        start = rng.randrange(0, size - 512, 512)
        length = min(rng.randrange(512, longest + 512, 512), (size - start) // 512 * 512)
        verb = rng.choice((f"write -P {rng.randrange(1, 256)}", "write -z", "write -zu", "discard"))
        commands.append(f"{verb} {start} {length}")
    return commands


def _write(path: Path, commands: list[str]) -> None:
    run("qemu-io", "-f", "qcow2", *(part for command in commands for part in ("-c", command)), str(path))


def _by_us(directory: Path) -> Iterator[tuple[str, bytes]]:
    rng = random.Random("ours")
    disk = b"".join(rng.choice((rng.randbytes(5000), bytes(40000), b"text " * 3000)) for _ in range(60))
    disk = disk[: len(disk) // 512 * 512]
    for cluster_size, kind, version in ((65536, None, 3), (4096, "zlib", 2), (65536, "zstd", 3), (512, "zlib", 3)):
        name = f"stream-{cluster_size}-{kind}"
        with open(directory / name, "wb") as file:
            write_stream(
                BytesSource(disk), file.fileno(), cluster_size=cluster_size, compression_type=kind, version=version
            )
        yield name, (directory / name).read_bytes()
    for cluster_size, compress in ((65536, False), (4096, True), (512, False)):
        name = f"disk-{cluster_size}-{compress}"
        with new_image(
            directory / name, len(disk), format="qcow2", cluster_size=cluster_size, compress=compress
        ) as target:
            for _ in range(12):
                start = rng.randrange(0, len(disk) - cluster_size, cluster_size)
                target.write(start, disk[start : start + min(len(disk) - start, cluster_size * rng.choice((1, 2)))])
            target.zero(cluster_size, min(100_000, len(disk) - cluster_size))
        yield name, (directory / name).read_bytes()
    for name in os.listdir(directory):
        if name.startswith(("stream-", "disk-")):
            run("qemu-img", "check", "-q", "-f", "qcow2", str(directory / name))
