# SPDX-License-Identifier: MIT
"""Check the options that meson was configured with, in the interpreter that the scripts will run with.

Prints the directory for the Python packages: in the virtual environment of the interpreter if it has one, otherwise
below the prefix. For bad options prints a sentence to standard error and exits with status 1.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import sysconfig

SHEBANG_LIMIT = 127  # bytes; Linux before 5.1 cuts off the rest
NEEDED = {"parted": "pyparted", "libarchive": "libarchive-c"}


def check_python(python: str) -> None:
    """Refuse an interpreter that cannot be in a script's first line."""
    length = len(os.fsencode(f"#!{python} -I"))
    if not python.startswith("/") or not os.access(python, os.X_OK):
        sys.exit(f"-Dpython=: {python!r} is not a program; expected the absolute path of an interpreter")
    if re.search(r"\s", python):
        sys.exit(f"-Dpython=: {python!r} has blanks in it, which the first line of a script cannot hold")
    if length > SHEBANG_LIMIT:
        sys.exit(f"-Dpython=: {python!r} makes a first line of {length} bytes; expected at most {SHEBANG_LIMIT}")


def check_directory(option: str, directory: str) -> None:
    """Refuse a directory that would need quoting in the scripts and in the settings file."""
    if not directory.startswith("/") or not directory.isprintable() or re.search(r"[\"'\\$`]", directory):
        sys.exit(f"{option}: {directory!r}; expected an absolute path without quotes, backslashes, $ and `")


def packages_directory(configured: str) -> str:
    """Return the directory for the packages; a virtual environment does not depend on the prefix."""
    is_virtual = sys.prefix != sys.base_prefix
    configured = os.path.normpath(configured)  # meson leaves a slash at the end, sys.path has none
    return sysconfig.get_path("purelib") if is_virtual and configured not in sys.path else configured


def main() -> None:
    """Check the arguments: interpreter, OS name, OS directory, sysconfdir, localstatedir, packages directory, and where
    ganeti_os and bundled packages are, which may be empty.
    """
    python, os_name, os_dir, sysconfdir, localstatedir, configured, os_packages, bundled = sys.argv[1:]
    check_python(python)
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", os_name):
        sys.exit(f"-Dos-name=: {os_name!r}; expected letters, digits, '.', '_' and '-'")
    packages = packages_directory(configured)
    checked = {"-Dos-dir=": os_dir, "--sysconfdir": sysconfdir, "--localstatedir": localstatedir, "--prefix": packages}
    checked |= {"-Dos-packages-dir=": os_packages} if os_packages else {}
    checked |= {"-Dbundled-dir=": bundled} if bundled else {}
    for option, directory in checked.items():
        check_directory(option, directory)
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        sys.stderr.write(f"{python} does not have {' and '.join(missing)} (yet), which the scripts need\n")
    sys.stdout.write(packages + "\n")


if __name__ == "__main__":
    main()
