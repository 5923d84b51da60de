# SPDX-License-Identifier: MIT
"""Inflate and do nothing else: the least time in which a compressed image or tarball can be read.

    python -I benchmarks/inflate.py FILE

FILE is gzip, or clusters of raw deflate, each after its length, which one thread for each processor inflates. isal is
used where it is installed, as in pydiskimg itself.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

_BATCH = 64


def main() -> None:
    stored = Path(sys.argv[1]).read_bytes()
    if stored.startswith(b"\x1f\x8b"):
        _gzip(stored)
        return
    inflate = _inflater()
    with ThreadPoolExecutor(cpu_count()) as pool:
        for _ in pool.map(lambda batch: [inflate(one) for one in batch], _batches(stored)):
            pass


def _inflater() -> Callable[[memoryview], bytes]:
    try:
        from isal import isal_zlib
    except ImportError:
        return lambda one: zlib.decompressobj(-12).decompress(one)
    return lambda one: bytes(isal_zlib.decompressobj(-12).decompress(one))


def _gzip(stored: bytes) -> None:
    try:
        from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor
    except ImportError:
        inflating = zlib.decompressobj(31)
        while stored and not inflating.eof:
            inflating.decompress(stored, 1 << 20)
            stored = inflating.unconsumed_tail
        return
    igzip = IgzipDecompressor(DECOMP_GZIP)
    igzip.decompress(stored, 1 << 20)
    while not igzip.eof:
        igzip.decompress(b"", 1 << 20)


def _batches(stored: bytes) -> Iterator[list[memoryview]]:
    view, offset, batch = memoryview(stored), 0, list[memoryview]()
    while offset < len(view):
        length = int.from_bytes(view[offset : offset + 4], "big")
        batch.append(view[offset + 4 : offset + 4 + length])
        offset += 4 + length
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


if __name__ == "__main__":
    main()
