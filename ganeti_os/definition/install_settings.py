# SPDX-License-Identifier: MIT
"""Install files that the administrator owns afterwards: existing ones are not overwritten. Paths are below $DESTDIR.

install_settings.py TEMPLATE DESTINATION      a file
install_settings.py --link TARGET LINK        a symbolic link to the absolute path TARGET
install_settings.py --directory DIRECTORY     an empty directory, which root alone can write to
"""

from __future__ import annotations

import os
import sys


def install(template: str, destination: str) -> bool:
    """Copy template to destination, mode 0644, and return True; leave an existing file alone and return False."""
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


def install_link(target: str, link: str) -> bool:
    """Make link point to target and return True; leave an existing file alone and return False."""
    if os.path.lexists(link):
        return False
    os.makedirs(os.path.dirname(link), mode=0o755, exist_ok=True)
    os.symlink(target, link)
    return True


def install_directory(directory: str) -> bool:
    """Make the directory, mode 0755, and return True; leave an existing one alone and return False."""
    if os.path.lexists(directory):
        return False
    os.makedirs(os.path.dirname(directory), mode=0o755, exist_ok=True)
    os.mkdir(directory)
    os.chmod(directory, 0o755)  # noqa: S103 - as the umask does not decide
    return True


def main() -> None:
    """Install, and report it on standard output as meson does."""
    *option, source, destination = sys.argv[1:]
    path = os.environ.get("DESTDIR", "") + destination
    if source == "--directory":
        installed = install_directory(path)
    else:
        installed = install_link(source, path) if option == ["--link"] else install(source, path)
    what = "directory" if source == "--directory" else source
    sys.stdout.write(f"Installing {what} to {path}\n" if installed else f"Keeping the existing {path}\n")


if __name__ == "__main__":
    main()
