# SPDX-License-Identifier: MIT
"""Backups: what an export writes and an import takes, docs/backup-format.md."""
