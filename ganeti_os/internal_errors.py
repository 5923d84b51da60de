# SPDX-License-Identifier: MIT
"""Turn a defect or a broken installation into one sentence for the reader of a log, like any other error."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger(__name__)

# By the name of the module: the package to install for it.
PACKAGES = {
    "parted": "python3-parted (pyparted)",
    "libarchive": "python3-libarchive-c (libarchive-c)",
    "yaml": "python3-yaml (PyYAML)",
    "cryptography": "python3-cryptography (cryptography)",
    "pysequoia": "pysequoia (with pip; IMAGE_KEYRING needs it)",
}


def defect(error: Exception, what: str) -> RuntimeError:
    """Return the error to report for an exception that is not the user's fault; the text names what is incomplete.

    The traceback of a defect is logged; a missing package has none.
    """
    if isinstance(error, ImportError):
        name = (error.name or "").partition(".")[0]
        if name in ("ganeti_os", "pydiskimg"):
            return RuntimeError(f"the installation is incomplete: the module {error.name} is missing; install it again")
        if name in sys.stdlib_module_names:
            return RuntimeError(
                f"{sys.executable} was built without the module {name} of Python's standard library; let another "
                "interpreter run the OS definition (-Dpython=)"
            )
        return RuntimeError(f"{sys.executable} has no Python package {name}; install {PACKAGES.get(name, name)} for it")
    log.info("the following is a defect; please report it", exc_info=error)
    return RuntimeError(f"internal error: {type(error).__name__}: {error}; {what} is not complete")
