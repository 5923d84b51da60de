# SPDX-License-Identifier: MIT
"""Compress and do nothing else: the least time in which a compressed image can be made.

    python -I benchmarks/deflate.py zlib|zstd FILE

One thread for each processor compresses the clusters of FILE, by pydiskimg's own function; the results are dropped.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path

from pydiskimg.images.qcow2.compress import compressor

_CLUSTER = 1 << 16
_BATCH = 64 * _CLUSTER


def main() -> None:
    compress = compressor(sys.argv[1], name=sys.argv[2])
    view = memoryview(Path(sys.argv[2]).read_bytes())

    def batch(start: int) -> None:
        for at in range(start, min(start + _BATCH, len(view)), _CLUSTER):
            compress(view[at : at + _CLUSTER])

    with ThreadPoolExecutor(cpu_count()) as pool:
        for _ in pool.map(batch, range(0, len(view), _BATCH)):
            pass


if __name__ == "__main__":
    main()
