# SPDX-License-Identifier: MIT
"""The table: every row, by its name, and those that the drawing shows."""

from __future__ import annotations

from benchmarks import rows_files, rows_ganeti, rows_images, rows_tables
from benchmarks.rows import Row

ROWS: dict[str, Row] = {
    row.name: row for module in (rows_images, rows_tables, rows_files, rows_ganeti) for row in module.ROWS
}

# One or two of each kind; the page has all.
DRAWN = (
    *(
        "zlib-to-dirty-device",
        "zlib-to-zero-device",
        "zstd-to-zero-device",
        "plain-to-zero-device",
        "raw-to-zero-device",
    ),
    *("raw-to-file", "compress-zlib", "compress-zstd", "raw-to-qcow2", "zlib-to-pipe", "sparse-copy"),
    *("many-extents-to-qcow2", "many-extents-to-raw", "chain-commit", "chain-rebase", "chain-to-qcow2"),
    *("map-scattered", "check-scattered", "compare", "write", "used-to-qcow2", "sparsify"),
    *("populate-debian", "populate-million", "build-qcow2", "tar-out-debian", "extract-debian", "restore"),
    *("mkfs-ext4-1t", "cat", "export-none-10g", "export-zlib-10g", "import-none-10g", "import-zlib-10g"),
)
