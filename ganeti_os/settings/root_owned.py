# SPDX-License-Identifier: MIT
"""Whether somebody else than root could have put something into what root is about to use."""

from __future__ import annotations

import os
import stat


def distrust(path: str, status: os.stat_result, use: str) -> str:
    """Return a sentence about what others own or can write to, empty for what can be trusted.

    use continues "what is in it".
    """
    if status.st_uid not in (0, os.geteuid()):
        return f"{path}: belongs to user {status.st_uid}, and what is in it {use}; expected root as its owner"
    if status.st_mode & stat.S_IWOTH:
        return (
            f"{path}: anybody can write to it (mode {stat.S_IMODE(status.st_mode):04o}), and what is in it {use}; take "
            "the write permission away from others"
        )
    return ""
