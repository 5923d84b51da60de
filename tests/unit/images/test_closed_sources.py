# SPDX-License-Identifier: MIT
"""What is read after it was closed says so: the number of its descriptor may be that of another file by then."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pydiskimg import (
    ImageSource,
    JoinedSource,
    MemoryDisk,
    SalvagedSource,
    Source,
    SourceRegion,
    StorageError,
    copy,
    make_ext,
    new_image,
    open_image,
    open_tree,
    read_bytes,
    used_source,
)

SIZE = 16 << 20
OPERATIONS: list[Callable[[Source], object]] = [
    lambda source: read_bytes(source, 0, 512),
    lambda source: read_bytes(source, SIZE // 2, 70_000),
    lambda source: list(source.extents()),
    lambda source: list(source.coarse_extents(1 << 20)),
    lambda source: source.file_ranges(0, 65536),
]


@pytest.fixture(params=["raw", "qcow2"])
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "image"
    with new_image(path, SIZE, format=request.param) as disk:
        make_ext(disk)
        disk.flush()
    with open_tree(path, writable=True) as tree:
        tree.write("/file", b"contents" * 10_000)
    return path


@pytest.fixture
def others(tmp_path: Path) -> Iterator[Callable[[], None]]:
    """Give a function that opens files, which get the numbers of closed descriptors."""
    with ExitStack() as stack:
        made = [tmp_path / f"other {index}" for index in range(8)]
        for path in made:
            path.write_bytes(b"not ours" * 10_000)

        def take() -> None:
            for path in made:
                stack.enter_context(path.open("rb"))

        yield take


def refused(operation: Callable[[Any], object], source: object) -> None:
    with pytest.raises(StorageError, match=r"/image: is closed$") as caught:
        operation(source)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "made",
    [
        lambda image: image,
        lambda image: SourceRegion(image, 0, SIZE),
        lambda image: JoinedSource([image]),
        used_source,
    ],
    ids=["image", "region", "joined", "used"],
)
def test_a_closed_image(
    image: Path,
    others: Callable[[], None],
    made: Callable[[ImageSource], Source],
    operation: Callable[[Source], object],
) -> None:
    with open_image(image) as source:
        above = made(source)
        read_bytes(above, 0, 512)
    others()
    refused(operation, above)


def test_a_copy_of_a_closed_image_is_not_zeros(image: Path) -> None:
    lost: list[object] = []
    with SalvagedSource(open_image(image), lambda *run: lost.append(run)) as source:
        read_bytes(source, 0, 512)
    refused(lambda one: copy(one, MemoryDisk(SIZE)), source)
    refused(lambda one: read_bytes(one, 0, 70_000), source)
    assert lost == []


def test_files_of_a_closed_tree(image: Path, others: Callable[[], None]) -> None:
    with open_tree(image, writable=True) as tree:
        file = tree.open("/file")
    others()
    for operation in (
        lambda: read_bytes(file, 0, 9),
        lambda: tree.read("/file"),
        lambda: tree.write("/file", b"other"),
        lambda: tree.remove("/file"),
        lambda: tree.list("/"),
    ):
        with pytest.raises(StorageError, match=r"/image.*: is closed$"):
            operation()
