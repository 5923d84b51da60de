# SPDX-License-Identifier: MIT
"""pydiskimg map, judged by qemu-img map."""

from __future__ import annotations

import io
import json
import random
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from pydiskimg.cli import main
from tests.fixtures.qcow2_images import run
from tests.fixtures.random_chains import make_chain

pytestmark = pytest.mark.oracle


def ours(path: Path, *options: str) -> str:
    out = io.StringIO()
    with redirect_stdout(out):
        status = main(["map", *options, "--allow-references", str(path.parent), str(path)])
    assert status == 0
    return out.getvalue()


def without_compressed(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Entries as QEMU before 8.2 has them: compressed data is not a kind of its own."""
    joined: list[dict[str, Any]] = []
    for entry in entries:
        del entry["compressed"]
        last = joined[-1] if joined else None
        alike = last is not None and all(last.get(k) == entry.get(k) for k in ("depth", "present", "zero", "data"))
        if last is not None and alike and "offset" not in last and "offset" not in entry:
            last["length"] += entry["length"]
        else:
            joined.append(entry)
    return joined


def assert_equal_maps(path: Path, kind: str, *window: str) -> None:
    theirs = json.loads(run("qemu-img", "map", "-f", kind, "--output=json", *window, str(path)))
    mine = json.loads(ours(path, "-f", kind, "--output", "json", *window))
    if any("compressed" in entry for entry in theirs):
        assert mine == theirs
    else:
        assert without_compressed(mine) == without_compressed([{"compressed": False} | entry for entry in theirs])


@pytest.mark.parametrize("seed", range(40))
def test_random_chains(tmp_path: Path, seed: int) -> None:
    path, kind = make_chain(tmp_path, seed)
    assert_equal_maps(path, kind)
    rng = random.Random(seed)
    start, length = rng.randrange(4 << 20), rng.randrange(1, 1 << 20)
    if start < json.loads(run("qemu-img", "info", "--output=json", "-f", kind, str(path)))["virtual-size"]:
        assert_equal_maps(path, kind, f"--start-offset={start}", f"--max-length={length}")
