# SPDX-License-Identifier: MIT
"""QEMU judges streamed qcow2 images: clean, identical, and good for writing on."""

from __future__ import annotations

import json
import os
import random
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from pydiskimg.disks.new_file import new_disk_file
from pydiskimg.errors import InvalidImageError
from pydiskimg.images.open import open_image
from pydiskimg.transfer.receive import read_stream
from pydiskimg.transfer.send import write_stream
from tests.fixtures.qcow2_images import SHAPES, make_image, run

pytestmark = pytest.mark.oracle

CLUSTER_SIZES = (512, 1024, 4096, 65536, 2 << 20)
KINDS = ((None, 3), (None, 2), ("zlib", 2), ("zlib", 3), ("zstd", 3))


def stream_to(path: Path, source: Path, **options: object) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with open_image(source) as image:
            write_stream(image, fd, **options)  # type: ignore[arg-type]
    finally:
        os.close(fd)


def restore(stream: Path, target: Path) -> None:
    fd = os.open(stream, os.O_RDONLY)
    try:
        with read_stream(fd, format="qcow2") as reading:
            assert reading.size is not None
            with new_disk_file(target, reading.size) as disk:
                reading.copy_to(disk)
    finally:
        os.close(fd)


def judge(image: Path, raw: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(run("qemu-img", "check", "-f", "qcow2", "--output=json", str(image)))
    assert not any(found.get(what) for what in ("corruptions", "leaks", "check-errors"))
    run("qemu-img", "compare", "-f", "qcow2", "-F", "raw", str(image), str(raw))
    return found


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Text, noise, zeros that are stored and zeros that are not, in runs of many lengths; not whole sectors."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    rng = random.Random(11)
    with path.open("wb") as file:
        for _ in range(250):
            file.seek(rng.randrange(0, 9 << 20))
            length = rng.choice((1, 511, 512, 3000, 70_000))
            file.write(rng.choice((rng.randbytes(length), b"text" * (length // 4), bytes(length))))
        file.truncate((10 << 20) + 300)
    return path


@pytest.mark.parametrize("cluster_size", CLUSTER_SIZES)
@pytest.mark.parametrize(("compression", "version"), KINDS)
def test_qemu_finds_streams_clean(
    disk: Path, tmp_path: Path, cluster_size: int, compression: str | None, version: int
) -> None:
    image, back = tmp_path / "image.qcow2", tmp_path / "back.raw"
    stream_to(image, disk, cluster_size=cluster_size, compression_type=compression, version=version)
    found = judge(image, disk)
    if compression is not None:
        assert found["compressed-clusters"] == found["allocated-clusters"] > 0
    restore(image, back)
    run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(back), str(disk))
    # What QEMU writes on it needs the refcounts and the copied bits to be right.
    writes = [part for at in range(0, 9 << 20, 700_000) for part in ("-c", f"write -P 7 {at // 512 * 512} 66048")]
    run("qemu-io", "-f", "qcow2", *writes, str(image))
    changed = tmp_path / "changed.raw"
    run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image), str(changed))
    judge(image, changed)
    with open_image(image) as ours, open_image(changed) as theirs:
        size = theirs.size
        one, other = bytearray(size), bytearray(size)
        ours.read_into(0, one)
        theirs.read_into(0, other)
        assert one == other


@pytest.mark.parametrize("cluster_size", [512, 65536])
@pytest.mark.parametrize("compression", ["zlib", "zstd"])
def test_qemu_reads_clusters_that_do_not_shrink(tmp_path: Path, cluster_size: int, compression: str) -> None:
    raw, image = tmp_path / "noise.raw", tmp_path / "noise.qcow2"
    raw.write_bytes(os.urandom(3 << 20))
    stream_to(image, raw, cluster_size=cluster_size, compression_type=compression)
    found = judge(image, raw)
    assert found["compressed-clusters"] == (3 << 20) // cluster_size
    assert image.stat().st_size < (3 << 20) * (1.2 if cluster_size == 512 else 1.01) + 6 * cluster_size


@pytest.mark.parametrize("shape", SHAPES[:14:3], ids=[shape[0] for shape in SHAPES[:14:3]])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_images_made_by_qemu_are_streamed(tmp_path: Path, shape: tuple[str, int, str], compression: str | None) -> None:
    path, data = make_image(tmp_path, shape, seed=3)
    image, raw = tmp_path / "stream.qcow2", tmp_path / "data.raw"
    raw.write_bytes(data)
    stream_to(image, path, compression_type=compression)
    judge(image, raw)
    back = tmp_path / "back"
    restore(image, back)
    assert back.read_bytes() == data


@pytest.mark.parametrize("options", [(), ("-c",), ("-c", "-o", "compression_type=zstd")])
def test_small_images_of_qemu_img_are_in_order_already(disk: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    """They have one L2 table; where QEMU put clusters that do not shrink apart, the order is refused, not misread."""
    image = tmp_path / "image.qcow2"
    text = tmp_path / "text.raw"
    text.write_bytes(b"".join(b"%d " % (number * number) for number in range(300_000)))
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, str(text), str(image))
    if image.stat().st_size % 65536:  # nor do they end with a cluster
        with pytest.raises(InvalidImageError, match=r"is filled up with zeros to byte [0-9]+, .*qemu-img"):
            restore(image, tmp_path / "back")
        with image.open("ab") as file:
            file.truncate(-(-image.stat().st_size // 65536) * 65536)
    restore(image, tmp_path / "back")
    whole = text.read_bytes()
    assert (tmp_path / "back").read_bytes() == whole + bytes(-len(whole) % 512)


@pytest.mark.parametrize("compression", [None, "zlib", "zstd"])
def test_a_stream_that_qemu_changed_is_refused_or_read_as_it_is_now(
    disk: Path, tmp_path: Path, compression: str | None
) -> None:
    """Its tables have another checksum then; the file is read, and streamed again."""
    image, changed, again = tmp_path / "image.qcow2", tmp_path / "changed.raw", tmp_path / "again.qcow2"
    for number, command in enumerate(("write -P 7 0 64k", "write -P 7 9M 64k", "discard 0 10M", "write -z 64k 64k")):
        stream_to(image, disk, compression_type=compression)
        run("qemu-io", "-f", "qcow2", "-c", command, str(image))
        run("qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(image), str(changed))
        with image.open("ab") as file:
            file.truncate(-(-image.stat().st_size // 65536) * 65536)
        back = tmp_path / f"back{number}"
        with suppress(InvalidImageError):
            restore(image, back)
            run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(back), str(changed))
        stream_to(again, image, compression_type=compression)
        judge(again, changed)
        restore(again, tmp_path / f"again{number}")
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", str(tmp_path / f"again{number}"), str(changed))


def test_64_tib(tmp_path: Path) -> None:
    raw, image = tmp_path / "huge.raw", tmp_path / "huge.qcow2"
    run("qemu-img", "create", "-q", "-f", "qcow2", str(raw), "64T")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 1 60T 64k", "-c", "write -P 2 5T 4k", str(raw))
    for compression in (None, "zlib"):
        stream_to(image, raw, compression_type=compression)
        assert image.stat().st_size < 2 << 20
        found = json.loads(run("qemu-img", "check", "-f", "qcow2", "--output=json", str(image)))
        assert not any(found.get(what) for what in ("corruptions", "leaks", "check-errors"))
        done = subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", "read -P 1 60T 64k", "-c", "read -P 2 5T 4k", str(image)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "verification failed" not in done.stdout


@pytest.mark.parametrize("kind", [None, "zstd"])
@pytest.mark.parametrize("cluster_size", [512, 64 << 10])
@pytest.mark.parametrize("extended", [16 << 10, 2 << 20])
def test_subclusters_through_a_pipe(tmp_path: Path, extended: int, cluster_size: int, kind: str | None) -> None:
    """Clusters of the stream, smaller and larger than those of the image, take what subclusters hold, in any order."""
    image, stream, raw = tmp_path / "extended.qcow2", tmp_path / "stream.qcow2", tmp_path / "disk.raw"
    options = f"extended_l2=on,cluster_size={extended}"
    run("qemu-img", "create", "-q", "-f", "qcow2", "-o", options, str(image), "5M")
    rng, commands = random.Random(extended), []
    for verb in ("write -P 1", "write -P 2", "write -z", "write -P 3", "write -z", "write -P 4") * 3:
        start, length = rng.randrange(9 << 10) * 512, rng.choice((512, 3 << 10, 70 << 10))
        commands += ["-c", f"{verb} {start} {length}"]
    run("qemu-io", "-f", "qcow2", *commands, str(image))
    stream_to(stream, image, cluster_size=cluster_size, compression_type=kind)
    run("qemu-img", "convert", "-O", "raw", str(image), str(raw))
    judge(stream, raw)
    restore(stream, tmp_path / "restored.raw")
    assert (tmp_path / "restored.raw").read_bytes() == raw.read_bytes()
