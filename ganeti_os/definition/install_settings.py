# SPDX-License-Identifier: MIT
"""Installs the settings file where there is none yet: install_settings.py TEMPLATE DESTINATION, below $DESTDIR."""

from __future__ import annotations

import os
import sys


def install(template: str, destination: str) -> bool:
    """Copy template to destination, mode 0644, and return True; leave whatever is there alone and return False."""
    if os.path.lexists(destination):
        return False
    os.makedirs(os.path.dirname(destination), mode=0o755, exist_ok=True)
    with open(template, "rb") as source:
        data = source.read()
    new = f"{destination}.new"
    with open(new, "wb") as target:
        target.write(data)
        os.fchmod(target.fileno(), 0o644)
        target.flush()
        os.fsync(target.fileno())
    os.rename(new, destination)
    return True


def main() -> None:
    """Install, and say so on standard output as meson does."""
    template, destination = sys.argv[1:]
    path = os.environ.get("DESTDIR", "") + destination
    done = f"Installing {template} to" if install(template, path) else "Keeping the existing"
    sys.stdout.write(f"{done} {path}\n")


if __name__ == "__main__":
    main()
