# SPDX-License-Identifier: MIT
"""The table: every row, by its name."""

from __future__ import annotations

from benchmarks import rows_files, rows_ganeti, rows_images, rows_tables
from benchmarks.rows import Row

ROWS: dict[str, Row] = {
    row.name: row for module in (rows_images, rows_tables, rows_files, rows_ganeti) for row in module.ROWS
}
