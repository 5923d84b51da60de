# SPDX-License-Identifier: MIT
"""What a defect or a broken installation is to a person who reads a log: one sentence, as any other error."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger(__name__)

# By the name that is imported: what to install for it.
PACKAGES = {
    "parted": "python3-parted (pyparted)",
    "libarchive": "python3-libarchive-c (libarchive-c)",
    "yaml": "python3-yaml (PyYAML)",
    "cryptography": "python3-cryptography (cryptography)",
    "pysequoia": "pysequoia (with pip; IMAGE_KEYRING needs it)",
}


def defect(error: Exception, what: str) -> RuntimeError:
    """Return the error to report in the place of one that is not the person's; what is incomplete is in the text.

    The traceback of a defect of ours is logged, that of a package that is missing is not.
    """
    if isinstance(error, ImportError):
        name = (error.name or "").partition(".")[0]
        if name in ("ganeti_os", "pydiskimg"):
            return RuntimeError(f"the installation is incomplete: there is no module {error.name}; install it again")
        return RuntimeError(f"{sys.executable} has no Python package {name}; install {PACKAGES.get(name, name)} for it")
    log.info("what follows is a defect; please report it", exc_info=error)
    return RuntimeError(f"internal error: {type(error).__name__}: {error}; {what} is not complete")
