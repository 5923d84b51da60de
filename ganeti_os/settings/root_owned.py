# SPDX-License-Identifier: MIT
"""Check whether users other than root could have changed files that root is about to use."""

from __future__ import annotations

import os
import stat


def distrust(path: str, status: os.stat_result, use: str) -> str:
    """Return a sentence about a file that others own or can write to; empty if it can be trusted.

    use continues "its content".
    """
    if status.st_uid not in (0, os.geteuid()):
        return f"{path}: belongs to user {status.st_uid}, and its content {use}; expected root as its owner"
    if status.st_mode & stat.S_IWOTH:
        return (
            f"{path}: all users can write to it (mode {stat.S_IMODE(status.st_mode):04o}), and its content {use}; "
            "remove the write permission of others"
        )
    return ""
