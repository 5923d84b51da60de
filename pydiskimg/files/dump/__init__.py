# SPDX-License-Identifier: MIT
"""Dumps made by dump(8) of Linux: read from start to end, and restored into a directory."""

from pydiskimg.files.dump.reader import DumpReader, open_dump
from pydiskimg.files.dump.restore import DumpWording, Restored, restore_dump

__all__ = ["DumpReader", "DumpWording", "Restored", "open_dump", "restore_dump"]
