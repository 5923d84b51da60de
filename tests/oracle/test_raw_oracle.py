# SPDX-License-Identifier: MIT
"""Raw images: holes where qemu-img sees them too."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from pydiskimg.extents import Extent, Kind, merged
from pydiskimg.images.open import open_image
from pydiskimg.protocols import read_bytes
from tests.fixtures.qcow2_images import assert_contract, run

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize("seed", range(4))
def test_maps_as_qemu_does(seed: int, tmp_path: Path, tool: Callable[[str], str]) -> None:
    tool("qemu-img")
    rng = random.Random(seed)
    path = tmp_path / "a sparse disk.img"
    size = rng.randrange(1 << 20, 1 << 26) // 512 * 512
    with path.open("wb") as file:
        file.truncate(size)
        for _ in range(20):
            file.seek(rng.randrange(size))
            file.write(rng.randbytes(min(rng.randrange(1, 1 << 18), size - file.tell())))
    mapped = json.loads(run("qemu-img", "map", "-f", "raw", "--output=json", str(path)))
    expected = merged(Extent(e["start"], e["length"], Kind.DATA if e["data"] else Kind.HOLE) for e in mapped)
    with open_image(path) as source:
        assert assert_contract(source) == list(expected)
        assert read_bytes(source, 0, size) == path.read_bytes()
