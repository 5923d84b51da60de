# SPDX-License-Identifier: MIT
"""python -m manual man|completion DIRECTORY writes the files; with list in place of DIRECTORY it prints their names.

settings NAME SYSCONFDIR LOCALSTATEDIR FILE writes the page of the OS definition.
"""

from __future__ import annotations

import os
import sys


def main(what: str, *words: str) -> None:
    """Write the requested files."""
    if what == "settings":
        from ganeti_os.settings.settings import Paths  # only here: a wheel is built without it
        from manual.settings_page import settings_page

        name, sysconfdir, localstatedir, file = words
        _write(file, settings_page(name, Paths(sysconfdir, localstatedir)))
        return
    (directory,) = words
    files = _man_pages() if what == "man" else _completions()
    if directory == "list":
        print(*files)
        return
    os.makedirs(directory, exist_ok=True)
    for name, text in files.items():
        _write(os.path.join(directory, name), text)


def _man_pages() -> dict[str, str]:
    from manual.man_pages import pages

    return pages()


def _completions() -> dict[str, str]:
    from manual.completion import FILES, completion  # only here: man pages need no shtab

    return {name: completion(shell) for shell, name in FILES.items()}


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    main(*sys.argv[1:])
