# SPDX-License-Identifier: MIT
"""GRUB's modules: their dependencies (moddep.lst), and the format of a module's file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from pydiskimg.boot.kernel_image import ELF_HEADER, ELF_IDENTITY, I386
from pydiskimg.boot.refusal import unknown

# A valid module name; it becomes a file name.
NAME = re.compile(r"[A-Za-z0-9_+-][A-Za-z0-9_.+-]{0,62}+")
_MOST_MODULES = 2048
_RELOCATABLE = 1


def read_dependencies(contents: bytes, path: str) -> dict[str, tuple[str, ...]]:
    """Return the contents of moddep.lst: for each module its direct dependencies, from lines "name: other other".

    Raises BootLoaderError for any other line.
    """
    found: dict[str, tuple[str, ...]] = {}
    lines = contents.splitlines()
    if len(lines) > _MOST_MODULES:
        raise unknown(path, "has too many lines", found=len(lines), expected=f"at most {_MOST_MODULES}")
    for number, line in enumerate(lines, start=1):
        name, colon, rest = line.decode("ascii", "replace").partition(":")
        names = [name, *rest.split()]
        if not colon or len(names) > _MOST_MODULES or not all(NAME.fullmatch(text) for text in names):
            raise unknown(f"{path}:{number}", "is not a line of modules", found=line[:60], expected="NAME: NAMES")
        found[name] = tuple(names[1:])
    return found


def closure(wanted: Sequence[str], dependencies: Mapping[str, Sequence[str]], path: str) -> list[str]:
    """Return the wanted modules and their dependencies, each after its own, in the order of grub-mkimage.

    path is the path of moddep.lst, for messages. Raises BootLoaderError for an unlisted module and for circular
    dependencies.
    """
    done: dict[str, None] = {}
    for name in wanted:
        _add(name, dependencies, path, done)
    return list(done)


def _add(wanted: str, dependencies: Mapping[str, Sequence[str]], path: str, done: dict[str, None]) -> None:
    """Add a module after its dependencies; without recursion, because the guest controls the list."""
    pending = [(wanted, False)]
    entered: set[str] = set()
    while pending:
        name, complete = pending.pop()
        if complete:
            done[name] = None
            continue
        if name in done:
            continue
        if name in entered:
            raise unknown(path, f"the module {name} depends on itself", found="a circle", expected="an order")
        if name not in dependencies:
            raise unknown(path, f"does not list the module {name}", found="no line", expected=f"{name}: ...")
        entered.add(name)
        pending.append((name, True))
        # grub-mkimage takes the last named module first.
        pending += [(other, False) for other in dependencies[name]]


def check_module(contents: bytes, path: str) -> None:
    """Raise BootLoaderError unless contents are a module: a relocatable ELF file for i386."""
    header = ELF_HEADER.unpack(contents[: ELF_HEADER.size].ljust(ELF_HEADER.size, b"\0"))
    kind = header["e_type"], header["e_machine"]
    if not header["e_ident"].startswith(ELF_IDENTITY) or kind != (_RELOCATABLE, I386):
        raise unknown(path, "is not a module for i386", found=contents[:20], expected="a relocatable 32-bit ELF file")
