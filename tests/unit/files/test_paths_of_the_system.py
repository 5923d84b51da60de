# SPDX-License-Identifier: MIT
"""A path of the running system with a NUL byte, which no file has, is refused in a sentence by all that take one."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pydiskimg import extract, new_image, open_disk, open_image, open_tar, open_tree
from pydiskimg.errors import DiskImageError
from pydiskimg.files.directory import DirectoryReader
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tar.packed import first_file, open_packed
from pydiskimg.files.tar.unpack import check_archive
from pydiskimg.files.writer import Wording, open_writer

PATH = "before\0after"
TAKERS: dict[str, Callable[[], object]] = {
    "open_image": lambda: open_image(PATH),
    "open_disk": lambda: open_disk(PATH).__enter__(),
    "new_image": lambda: new_image(PATH, 1 << 20).__enter__(),
    "open_tree": lambda: open_tree(PATH),
    "extract": lambda: extract(PATH, "/nowhere"),
    "open_tar": lambda: open_tar(PATH).__enter__(),
    "check_archive": lambda: check_archive(PATH),
    "first_file": lambda: first_file(PATH),
    "open_packed": lambda: open_packed(PATH).__enter__(),
    "open_mounted_tree": lambda: open_mounted_tree(PATH),
    "open_writer": lambda: open_writer(PATH, Wording("archive")).__enter__(),
    "DirectoryReader": lambda: list(DirectoryReader(PATH.encode()).entries()),
    "DirectoryReader with a name": lambda: list(DirectoryReader(PATH.encode(), prefix=b"name").entries()),
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_a_nul_byte_in_a_path(take: Callable[[], object]) -> None:
    with pytest.raises(DiskImageError, match=r"before\\x00after.*(NUL|null) byte") as raised:
        take()
    assert str(raised.value).isprintable()
