# SPDX-License-Identifier: MIT
"""Backups: the format that an export writes and an import reads, docs/backup-format.md."""
