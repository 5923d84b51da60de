# SPDX-License-Identifier: MIT
"""Helpers that keep the start of a command short. This module imports nothing.

A command such as `info` takes about 5 ms of processor time in addition to the interpreter's own start, and a verb of an
OS definition runs once for each disk. Importing a module of the standard library takes these times, in milliseconds on
a slow processor (python3.11 -I -S, without its own start of 14 ms):

    importlib.metadata 57   logging 21   dataclasses, with inspect 20   typing 12   argparse 12   re 8   json 8
    contextlib 8   collections.abc 5   threading 4   functools 4   types 2   enum 1

A module of this package takes 0.1 to 0.2 ms.

Therefore:

- TYPE_CHECKING, Protocol, Generic and TypeVar come from here if only a type checker needs them: annotations are text.
  Modules that no short command imports may import them from typing.
- Code that runs in the commands that cli/__init__.py parses itself has classes written by hand, not dataclasses, named
  tuples or enumerations; ValueObject and cached_property are below. It imports collections.abc for type checkers only,
  and does not use re: runs of kinds are found by qcow2/runs.py.
- logging, json and importlib.metadata are imported where they are used, and so are modules that mount or unpack.
- pydiskimg/__init__.py imports the public names when they are first used.
- records.py imports _struct instead of struct.py, which only re-exports it: 0.1 ms; it parses a table of fields when a
  record is first used. cli/signals.py imports _signal, because signal.py imports enum; qcow2/cache.py imports
  OrderedDict from _collections, and modules that start no threads import locks from _thread.
- array imports collections.abc: qcow2/words.py imports it only when there is a table to read.
- Resizing a disk does not need the reader and writer of clusters: write/disk.py makes them on first use, and
  images/resize.py changes only the header where that is enough.
- fs/probe/ imports the code that judges a file system when it finds a signature of it.
- cli/__init__.py parses the common forms of these commands itself, by the same declarations that argparse gets.
- --help prints cli/commands.py, the table of the subcommands; cli/command_line.py imports one when it is named.
- The module of a subcommand imports at its top what declares its options, and in run() what its work needs.
- Commands and verbs run the garbage collector less often, switch threads sooner, and end without finalising the
  interpreter (linux/stdio.py).
"""

from __future__ import annotations

# With the interpreter's default of 700, collections during imports take as long as some of the imports.
OBJECTS_BETWEEN_COLLECTIONS = 50_000
# A thread that inflates or copies needs the interpreter for a moment between two blocks. With the default of 5 ms it
# waits as long as a block takes; with this value a tarball becomes a file system in a twelfth less time.
THREADS_TAKE_TURNS_SECONDS = 0.0003

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from functools import cached_property as cached_property  # noqa: PLC0414 - so that it is exported
    from typing import Any, Self
    from typing import Generic as Generic  # noqa: PLC0414 - so that it is exported
    from typing import Protocol as Protocol  # noqa: PLC0414
    from typing import TypeVar as TypeVar  # noqa: PLC0414
else:
    Protocol = object

    class Generic:
        """Replaces typing.Generic as a base class."""

        def __class_getitem__(cls, _):
            return cls

    def TypeVar(*_, **__):  # noqa: N802 - typing's name
        """Replace typing.TypeVar."""

    class cached_property:  # noqa: N801 - functools' name
        """Replaces functools.cached_property."""

        def __init__(self, compute):
            self._compute = compute

        def __set_name__(self, _, name):
            self._name = name

        def __get__(self, instance, _):
            value = instance.__dict__[self._name] = self._compute(instance)
            return value


def found_when_used(package: dict[str, Any], homes: dict[str, str]) -> Callable[[str], Any]:
    """Return the __getattr__ of a package, given its globals(): it imports each name from the module that has it."""

    def found(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f"{package['__name__']}.{homes[name]}"), name)
        package[name] = value
        return value

    return found


class ValueObject:
    """A base class in place of a frozen dataclass; its fields are the parameters of __init__.

    Objects of one class are equal if their fields are. They are immutable.
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(tuple(self._fields().values()))

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={value!r}" for name, value in self._fields().items())
        return f"{type(self).__name__}({fields})"

    def _fields(self) -> dict[str, object]:
        code = type(self).__init__.__code__
        parameters = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
        return {name: getattr(self, name) for name in parameters}

    def replaced(self, **changes: object) -> Self:
        """Return a copy with other values of some fields."""
        return type(self)(**{**self._fields(), **changes})
