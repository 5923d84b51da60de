# SPDX-License-Identifier: MIT
"""An image with backing files: what is read and mapped through the holes, with any sizes."""

from __future__ import annotations

import argparse
import os
import random
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pydiskimg.cli.references import add_references_option, references
from pydiskimg.errors import DiskImageError, StorageError, UnsupportedImageError
from pydiskimg.extents import Extent, Kind
from pydiskimg.images.open import open_image
from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.reader import Qcow2Source, open_qcow2
from pydiskimg.protocols import Source, WritableBuffer, read_bytes
from tests.fixtures.qcow2_images import BytesSource, Craft, assert_contract, extension

CLUSTER = 512
MOST = 40 * CLUSTER
PATTERNS = random.Random(5).randbytes(MOST)


class PatternSource(BytesSource):
    """Bytes whose extents are given by the test, and not only DATA."""

    def __init__(self, kinds: list[Kind], size: int) -> None:
        data = b"".join(
            PATTERNS[n * CLUSTER : (n + 1) * CLUSTER] if kind is Kind.DATA else bytes(CLUSTER)
            for n, kind in enumerate(kinds)
        )
        super().__init__(data[:size])
        self.kinds = kinds

    def extents(self) -> Iterator[Extent]:
        yield from joined([kind for kind in self.kinds for _ in range(CLUSTER)][: self.size])


def joined(flat: list[Kind]) -> list[Extent]:
    """The extents of a disk, given the kind of every byte."""
    extents, start = [], 0
    for kind, group in groupby(flat):
        length = len(list(group))
        extents.append(Extent(start, length, kind))
        start += length
    return extents


def layer(kinds: list[Kind], size: int, *, version: int) -> bytes:
    """An image with these clusters: DATA is one of its own, ZERO has the zero bit, HOLE is not there."""
    craft = Craft(version=version, size=size, l2=[[0] * 64], data=PATTERNS[::-1])
    craft.l2 = [
        [{Kind.HOLE: 0, Kind.ZERO: 1, Kind.DATA: craft.data_offset + n * CLUSTER}[k] for n, k in enumerate(kinds)]
    ]
    return craft.build()


kinds = st.lists(st.sampled_from([Kind.DATA, Kind.ZERO, Kind.HOLE]), max_size=40)
size = st.integers(0, MOST)


@settings(max_examples=120)
@given(
    base=kinds,
    base_size=size,
    layers=st.lists(st.tuples(kinds, size, st.sampled_from([2, 3])), min_size=1, max_size=3),
    offset=size,
    length=size,
)
def test_any_chain(
    base: list[Kind], base_size: int, layers: list[tuple[list[Kind], int, int]], offset: int, length: int
) -> None:
    base_size = min(base_size, len(base) * CLUSTER)
    below: Source = PatternSource(base, base_size)
    whole = read_bytes(below, 0, base_size)
    flat = [kind for kind in base for _ in range(CLUSTER)][:base_size]
    for with_zeros, own_size, version in layers:
        own = [Kind.HOLE if kind is Kind.ZERO and version == 2 else kind for kind in with_zeros]
        below = open_qcow2(BytesSource(layer(own, own_size, version=version)), backing=below)
        behind, behind_flat = whole.ljust(MOST, b"\0"), flat + [Kind.HOLE] * (MOST - len(flat))
        whole, flat = b"", []
        for n in range(40):
            kind = own[n] if n < len(own) else Kind.HOLE
            place = slice(n * CLUSTER, (n + 1) * CLUSTER)
            whole += {Kind.DATA: PATTERNS[::-1][place], Kind.ZERO: bytes(CLUSTER), Kind.HOLE: behind[place]}[kind]
            flat += behind_flat[place] if kind is Kind.HOLE else [kind] * CLUSTER
        whole, flat = whole[:own_size], flat[:own_size]
    assert below.size == len(whole)
    assert read_bytes(below, 0, below.size) == whole
    offset = min(offset, below.size)
    length = min(length, below.size - offset)
    assert read_bytes(below, offset, length) == whole[offset : offset + length]
    assert assert_contract(below) == joined(flat)


def test_runs_are_of_one_layer() -> None:
    below = PatternSource([Kind.DATA] * 4, 4 * CLUSTER)
    source = open_qcow2(BytesSource(layer([Kind.HOLE, Kind.DATA], 4 * CLUSTER, version=3)), backing=below)
    assert source.backing is below
    assert [(chr(run.kind), run.start, run.length) for run in source.mapping.runs(0, 4 * CLUSTER)] == [
        ("H", 0, CLUSTER),
        ("D", CLUSTER, CLUSTER),
        ("H", 2 * CLUSTER, 2 * CLUSTER),
    ]


def test_what_is_handed_in_must_fit_the_header() -> None:
    with pytest.raises(ValueError, match="has no external data file, but one was passed"):
        open_qcow2(BytesSource(Craft().build()), data_file=BytesSource(b""))


class Unreadable(BytesSource):
    """A Source that must not be read."""

    def read_into(self, offset: int, buffer: WritableBuffer) -> None:
        raise AssertionError


def test_what_is_covered_is_not_read() -> None:
    content = layer([Kind.ZERO, Kind.DATA], 4 * CLUSTER, version=3)
    source = open_qcow2(BytesSource(content), backing=Unreadable(bytes(CLUSTER)))
    assert read_bytes(source, 0, 4 * CLUSTER) == bytes(CLUSTER) + PATTERNS[::-1][CLUSTER : 2 * CLUSTER] + bytes(1024)


def chained(name: bytes) -> bytes:
    extensions = extension(layout.EXTENSION_BACKING_FORMAT, b"qcow2") + bytes(8)
    header = {"backing_file_offset": 112 + len(extensions), "backing_file_size": len(name)}
    return Craft(extensions=extensions + name, header=header).build()


def parsed(*arguments: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_references_option(parser)
    return parser.parse_args(arguments)


def test_the_option_and_who_closes_what(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "a").write_bytes(chained(b"b"))
    (tmp_path / "b").write_bytes(chained(b"c"))
    (tmp_path / "c").write_bytes(Craft().build())
    with references(parsed()) as policy:
        assert policy is None
    with references(parsed("--allow-references", str(tmp_path))) as policy:
        source = open_image(tmp_path / "a", references=policy)
    assert isinstance(source, Qcow2Source)
    assert isinstance(source.backing, Qcow2Source)
    assert len(os.listdir("/proc/self/fd")) == before + 3
    source.close()
    assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "c").write_bytes(Craft(version=4).build())
    with references(parsed("--allow-references", str(tmp_path))) as policy, pytest.raises(UnsupportedImageError):
        open_image(tmp_path / "a", references=policy)
    with pytest.raises(StorageError), references(parsed("--allow-references", str(tmp_path / "none"))):
        pass
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_raw_image_has_no_snapshots(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"raw")
    with pytest.raises(DiskImageError, match="is a raw image, which has no snapshots; '1' was requested"):
        open_image(tmp_path / "a", snapshot="1")


def test_corrupt_and_encrypted_files_in_a_chain_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a").write_bytes(chained(b"b"))
    with references(parsed("--allow-references", str(tmp_path))) as policy:
        (tmp_path / "b").write_bytes(Craft(header={"crypt_method": 2}).build())
        with pytest.raises(UnsupportedImageError, match="/b: is encrypted with LUKS"):
            open_image(tmp_path / "a", references=policy)
        (tmp_path / "b").write_bytes(Craft(header={"incompatible_features": 2}).build())
        open_image(tmp_path / "a", references=policy).close()
    assert [record.getMessage().partition(" by ")[0] for record in caplog.records] == [
        f"{tmp_path}/b: is marked corrupt"
    ]
