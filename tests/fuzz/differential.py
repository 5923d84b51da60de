# SPDX-License-Identifier: MIT
"""Random images, read by us and by qemu-img: python -m tests.fuzz.differential --images 3000

An even number makes images by qemu-img and qemu-io, all features mixed, that we read. An odd number makes one by us,
which qemu-io changes, which we read, change once more, and let qemu-img check and read.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydiskimg.disks.memory import MemoryDisk
from pydiskimg.extents import Kind
from pydiskimg.images.create import new_image
from pydiskimg.images.open import open_image
from pydiskimg.images.open_disk import open_disk
from pydiskimg.images.qcow2.check import check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.snapshots import read_snapshots
from pydiskimg.images.references import AllowedDirectory, allow_references
from pydiskimg.protocols import Disk, ImageSource, Source, read_bytes
from pydiskimg.transfer.receive import read_stream
from pydiskimg.transfer.send import write_stream
from tests.fixtures.qcow2_images import BytesSource, assert_contract, run

SECTOR = 512
CLUSTER_SIZES = [512 << shift for shift in range(13)]


@dataclass
class Layer:
    """One image of a chain, as it is going to be made."""

    path: Path
    format: str
    size: int
    cluster_size: int
    options: list[str]

    @property
    def compresses(self) -> bool:
        return self.format == "qcow2" and not any(
            option.startswith(("data_file", "preallocation")) for option in self.options
        )

    @property
    def keeps_snapshots(self) -> bool:
        """True when QEMU can make internal snapshots: each counts every cluster once more, a shared one often."""
        narrow = ("refcount_bits=1", "refcount_bits=2", "refcount_bits=4")
        return self.format == "qcow2" and not any(
            option.startswith("data_file") or option in narrow for option in self.options
        )


def compare_image(seed: int, directory: Path) -> str:
    """Make one image, and compare; returns what kind of image it was. AssertionError when anything differs."""
    rng = random.Random(f"differential {seed}")
    return (_ours if seed % 2 else _qemus)(rng, directory)


def _qemus(rng: random.Random, directory: Path) -> str:
    layers: list[Layer] = []
    depth = rng.choice((1, 1, 1, 2, 2, 3, 5))
    for number in range(depth):
        layer = _plan(rng, directory / f"{number}.img", layers)
        _make(rng, layer, layers, directory)
        layers.append(layer)
    top = layers[-1]
    raw = directory / "expected.raw"
    with allow_references(directory) as references:
        names = _compare_snapshots(rng, top, raw, references)
        _convert(top, raw)
        with open_image(top.path, format=top.format, references=references) as source:
            compare_bytes(rng, source, raw.read_bytes())
    if top.format == "qcow2":
        assert_checked(top.path)
    return " ".join(["qemu", top.format, f"depth={depth}", *(["snapshots"] if names else [])])


def _plan(rng: random.Random, path: Path, below: list[Layer]) -> Layer:
    cluster_size = rng.choice(CLUSTER_SIZES)
    size = rng.randrange(1, max(9 * cluster_size, rng.choice((70_000, 1 << 20, 4 << 20))) // SECTOR) * SECTOR
    if not below and rng.random() < 0.15:
        return Layer(path, "raw", size, SECTOR, [])
    options = [f"cluster_size={cluster_size}", *_options(rng, path, cluster_size, has_backing=bool(below))]
    return Layer(path, "qcow2", size, cluster_size, options)


def _options(rng: random.Random, path: Path, cluster_size: int, *, has_backing: bool) -> list[str]:
    """Options that QEMU takes together."""
    if rng.random() < 0.15:
        return ["compat=0.10", *([] if has_backing else rng.choice(([], [], ["preallocation=metadata"])))]
    options = [f"refcount_bits={rng.choice((1, 2, 4, 8, 16, 16, 16, 32, 64))}"]
    extended = cluster_size >= 16384 and rng.random() < 0.45
    if extended:
        options.append("extended_l2=on")
    options += rng.choice(([], [], ["lazy_refcounts=on"]))
    extra = rng.random()
    if extra < 0.2:
        options.append(f"data_file={path.with_suffix('.data')}")
        options += [] if has_backing else rng.choice(([], ["data_file_raw=on"]))
    elif extra < 0.4 and (extended or not has_backing):
        options.append(f"preallocation={rng.choice(('metadata', 'falloc', 'full'))}")
    else:
        options.append(f"compression_type={rng.choice(('zlib', 'zstd'))}")
    return options


def _make(rng: random.Random, layer: Layer, below: list[Layer], directory: Path) -> None:
    command = ["qemu-img", "create", "-q", "-f", layer.format]
    if below:
        command += ["-b", below[-1].path.name, "-F", below[-1].format]
    command += ["-o", ",".join(layer.options)] if layer.options else []
    run(*command, str(layer.path), str(layer.size))
    text = directory / "text"
    text.write_bytes(b"".join(b"%x " % rng.getrandbits(rng.choice((8, 200))) for _ in range(3000)))
    # QEMU 7.2 corrupts an image that gets compressed writes after others: they come first, each to a new cluster.
    commands = _compressed_writes(rng, layer, text) if layer.compresses and rng.random() < 0.6 else []
    commands += [random_write(rng, layer.size, text) for _ in range(rng.randrange(16))]
    qemu_io(layer.path, layer.format, commands)
    if layer.keeps_snapshots and rng.random() < 0.35:
        for number in range(rng.choice((1, 1, 3))):
            run("qemu-img", "snapshot", "-c", f"snapshot {number}", str(layer.path))
            qemu_io(layer.path, layer.format, [random_write(rng, layer.size, text) for _ in range(rng.randrange(8))])
    elif layer.format == "qcow2" and rng.random() < 0.1 and _grows(layer, over=bool(below)):
        layer.size += rng.randrange(SECTOR, 1 << 20, SECTOR)
        run("qemu-img", "resize", "-q", "-f", "qcow2", str(layer.path), str(layer.size))


def _grows(layer: Layer, *, over: bool) -> bool:
    """True when QEMU 7.2 can make the layer, which stands over another one or not, larger."""
    if over and "extended_l2=on" in layer.options:  # "Failed to zero out new clusters", for sizes inside a cluster
        return False
    return "data_file_raw=on" not in layer.options and "compat=0.10" not in layer.options


def qemu_io(path: Path, image_format: str, commands: list[str]) -> None:
    """Let one qemu-io do all of the commands."""
    if commands:
        run("qemu-io", "-f", image_format, *(part for command in commands for part in ("-c", command)), str(path))


def random_write(rng: random.Random, size: int, text: Path) -> str:
    """A command that changes some sectors, within a cluster or over several."""
    start = rng.randrange(0, size, SECTOR)
    longest = min(size - start, rng.choice((4096, 70_000, 600_000, 5_000_000)))
    length = rng.randrange(SECTOR, longest + 1, SECTOR)
    verb = rng.choice((f"write -P {rng.randrange(256)}", f"write -s {text}", "write -z", "write -z -u", "discard"))
    return f"{verb} {start} {length}"


def _compressed_writes(rng: random.Random, layer: Layer, text: Path) -> list[str]:
    clusters = -(-layer.size // layer.cluster_size)
    chosen = rng.sample(range(clusters), min(clusters, rng.randrange(1, 8)))
    verbs = [rng.choice((f"write -c -P {rng.randrange(256)}", f"write -c -s {text}")) for _ in chosen]
    starts = [cluster * layer.cluster_size for cluster in chosen]
    return [
        f"{verb} {start} {min(layer.cluster_size, layer.size - start)}"
        for verb, start in zip(verbs, starts, strict=True)
    ]


def _convert(layer: Layer, raw: Path, *options: str) -> None:
    run("qemu-img", "convert", "-f", layer.format, *options, "-O", "raw", str(layer.path), str(raw))


def _compare_snapshots(rng: random.Random, top: Layer, raw: Path, references: AllowedDirectory) -> list[str]:
    if top.format == "raw":
        return []
    file = BytesSource(top.path.read_bytes())
    names = [snapshot.name for snapshot in read_snapshots(file, read_header(file))]
    for name in names[:2]:
        _convert(top, raw, "-l", f"snapshot.name={name}")
        with open_image(top.path, format="qcow2", references=references, snapshot=name) as source:
            compare_bytes(rng, source, raw.read_bytes())
    return names


def compare_bytes(rng: random.Random, source: ImageSource | Source, expected: bytes) -> None:
    """The whole, and pieces anywhere; and nothing but DATA has other bytes than zeros."""
    assert source.size == len(expected)
    for _ in range(12):
        offset = rng.choice((rng.randrange(source.size), rng.randrange(source.size) // 4096 * 4096))
        length = min(rng.choice((1, 511, 512, 4096, 65536, 100_000, 1 << 20)), source.size - offset)
        length = rng.choice((length, rng.randrange(length + 1)))
        found = read_bytes(source, offset, length)
        assert found == expected[offset : offset + length], f"offset {offset}, length {length}"
    assert read_bytes(source, 0, source.size) == expected
    for extent in assert_contract(source):
        assert extent.kind is Kind.DATA or not any(expected[extent.start : extent.end]), f"{extent} has data"


def assert_checked(path: Path) -> None:
    """qemu-img finds nothing wrong, and neither do we."""
    run("qemu-img", "check", "-q", "-f", "qcow2", str(path))
    result = check_qcow2(BytesSource(path.read_bytes()))
    assert result.is_clean, result.details


def _ours(rng: random.Random, directory: Path) -> str:
    path, raw, text = directory / "ours.qcow2", directory / "expected.raw", directory / "text"
    text.write_bytes(rng.randbytes(7) + b"some text " * 50)
    cluster_size = rng.choice(CLUSTER_SIZES)
    size = rng.randrange(1, max(9 * cluster_size, rng.choice((70_000, 1 << 20, 3 << 20))) // SECTOR) * SECTOR
    kind = rng.choice(("zlib", "zstd"))
    version = 3 if kind == "zstd" else rng.choice((2, 3))
    make: Callable[..., bytearray] = rng.choice((_by_disk, _by_stream))
    model = make(rng, path, size, cluster_size=cluster_size, compression_type=kind, version=version)
    assert_checked(path)
    _expect(rng, path, raw, model)
    # QEMU 7.2 corrupts an image that gets compressed writes after others: no compressed ones by it here.
    commands = [random_write(rng, size, text) for _ in range(rng.randrange(1, 12))]
    if rng.random() < 0.3:
        run("qemu-img", "snapshot", "-c", "before", str(path))
    qemu_io(path, "qcow2", commands)
    assert_checked(path)
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw))
    model = bytearray(raw.read_bytes())
    with open_image(path, format="qcow2") as source:
        compare_bytes(rng, source, bytes(model))
    with open_disk(path, writable=True, format="qcow2", compress=rng.random() < 0.4) as disk:
        change(rng, disk, model, cluster_size)
        disk.flush()
    assert_checked(path)
    _expect(rng, path, raw, model)
    return f"ours{make.__name__.replace('_', ' ')} {kind} v{version}"


def _by_disk(
    rng: random.Random, path: Path, size: int, *, cluster_size: int, compression_type: str, version: int
) -> bytearray:
    model = bytearray(size)
    with new_image(
        path,
        size,
        format="qcow2",
        cluster_size=cluster_size,
        version=version,
        compression_type=compression_type,
        compress=rng.random() < 0.5,
    ) as disk:
        change(rng, disk, model, cluster_size)
    return model


def _by_stream(
    rng: random.Random, path: Path, size: int, *, cluster_size: int, compression_type: str, version: int
) -> bytearray:
    """A stream, which is read back as a stream too."""
    model = bytearray(size)
    change(rng, disk := MemoryDisk(size), model, cluster_size)
    with open(path, "w+b") as file:
        write_stream(
            disk,
            file.fileno(),
            cluster_size=cluster_size,
            version=version,
            compression_type=compression_type if compression_type == "zstd" else rng.choice((None, "zlib")),
            find_zeros=rng.choice((None, True)),
            spool_directory=str(path.parent),
        )
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        back = MemoryDisk(size, fill=0xFF)
        with read_stream(file.fileno(), format="qcow2", spool_directory=str(path.parent)) as stream:
            assert stream.copy_to(back) == size
    assert read_bytes(back, 0, size) == model
    return model


def change(rng: random.Random, disk: Disk, model: bytearray, cluster_size: int) -> None:
    """Write at random: parts of clusters, whole ones, zeros."""
    for _ in range(rng.randrange(1, 10)):
        start = rng.randrange(len(model))
        length = min(rng.choice((1, 700, 5000, cluster_size, 3 * cluster_size)), len(model) - start)
        if rng.random() < 0.5:
            start -= start % cluster_size
        if rng.random() < 0.25:
            disk.zero(start, length)
            model[start : start + length] = bytes(length)
            continue
        data = rng.choice((rng.randbytes(length), b"%d" % rng.getrandbits(30) * length, bytes(length)))[:length]
        disk.write(start, data)
        model[start : start + length] = data


def _expect(rng: random.Random, path: Path, raw: Path, model: bytearray) -> None:
    """Both read what was written."""
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(path), str(raw))
    assert raw.read_bytes() == model, "qemu-img reads other bytes than were written"
    with open_image(path, format="qcow2") as source:
        compare_bytes(rng, source, bytes(model))


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.differential")
    parser.add_argument("--images", type=int, default=3000)
    parser.add_argument("--first", type=int, default=1000, help="the first number; it alone decides on the image")
    parser.add_argument("--keep", type=Path, default=Path(".fuzz"), help="directory for images that are read otherwise")
    arguments = parser.parse_args()
    kinds: Counter[str] = Counter()
    failed: list[int] = []
    start = time.monotonic()
    for seed in range(arguments.first, arguments.first + arguments.images):
        directory = Path(tempfile.mkdtemp(prefix="pydiskimg-differential-", dir="/dev/shm"))
        try:
            kinds[compare_image(seed, directory)] += 1
        except Exception as error:  # noqa: BLE001 - each is a finding
            failed.append(seed)
            sys.stderr.write(f"{seed}: {type(error).__name__}: {str(error)[:600]}\n")
            shutil.copytree(directory, arguments.keep / f"differential-{seed}", dirs_exist_ok=True)
        finally:
            shutil.rmtree(directory)
    lines = [f"{count:>8}  {kind}" for kind, count in sorted(kinds.items())]
    lines.append(
        f"{arguments.images} images in {time.monotonic() - start:.0f} s, {len(failed)} read otherwise: {failed}"
    )
    sys.stdout.write("\n".join(lines) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
