# SPDX-License-Identifier: MIT
"""What keeps the start of a command short. Everything here, or listed here, is for that alone; nothing is imported.

A command such as `info` takes some 5 ms of the processor beside what the interpreter itself takes, and a verb of an
OS definition runs once for each disk. Importing a module of the standard library costs as follows, in milliseconds of
a slow processor (python3.11 -I -S, its own start of 14 ms taken off):

    importlib.metadata 57   logging 21   dataclasses, with inspect 20   typing 12   argparse 12   re 8   json 8
    contextlib 8   collections.abc 5   threading 4   functools 4   types 2   enum 1

A module of ours costs 0.1 to 0.2 ms.

Hence:

- TYPE_CHECKING, Protocol, Generic and TypeVar come from here, where only a type checker needs them: annotations are
  text. In what no short command imports they may as well come from typing.
- What the commands pass through that cli/__init__.py understands itself has classes written by hand, not dataclasses,
  named tuples or enumerations; ValueObject and cached_property are below. It names collections.abc for type checkers
  only, and does without re: runs of kinds are found by qcow2/runs.py.
- logging, json and importlib.metadata are imported where they are used, and so is everything that mounts or unpacks.
- pydiskimg/__init__.py finds the public names when they are first used.
- records.py takes from _struct what struct.py, a module more, only passes on: 0.1 ms; it reads a table of fields when
  a record is first used. cli/signals.py takes _signal, as signal.py imports enum; qcow2/cache.py takes OrderedDict from
  _collections, and locks come from _thread, where threads are started by others.
- array imports collections.abc: qcow2/words.py imports it where there is a table.
- Another size of a disk needs no writer of clusters, nor what reads them: write/disk.py makes that when it is first
  asked for, and images/resize.py changes the header alone where that is enough.
- fs/probe/ imports what judges a file system where one of its marks is there.
- cli/__init__.py understands the common forms of these commands by the options that argparse gets.
- cli/command_line.py imports a subcommand when it is named: --help shows what it says of each.
- Commands and verbs look for garbage less often, let threads take turns sooner, and end without taking the interpreter
  apart (linux/stdio.py).
"""

from __future__ import annotations

# With the interpreter's 700, looking through what is imported takes as long as some of the imports.
OBJECTS_BETWEEN_COLLECTIONS = 50_000
# A thread that inflates or copies wants the interpreter for a moment between two blocks. With the interpreter's 5 ms it
# waits for as long as a block takes: a tarball becomes a file system in a twelfth less time so.
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
        """Takes the place of typing.Generic as a base class."""

        def __class_getitem__(cls, _):
            return cls

    def TypeVar(*_, **__):  # noqa: N802 - typing's name
        """Take the place of typing.TypeVar."""

    class cached_property:  # noqa: N801 - functools' name
        """Takes the place of functools.cached_property."""

        def __init__(self, compute):
            self._compute = compute

        def __set_name__(self, _, name):
            self._name = name

        def __get__(self, instance, _):
            value = instance.__dict__[self._name] = self._compute(instance)
            return value


def found_when_used(package: dict[str, Any], homes: dict[str, str]) -> Callable[[str], Any]:
    """Return the __getattr__ of a package, given its globals(): names by the module below it that has each."""

    def found(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package['__name__']!r} has no attribute {name!r}")
        from importlib import import_module

        value: object = getattr(import_module(f"{package['__name__']}.{homes[name]}"), name)
        package[name] = value
        return value

    return found


class ValueObject:
    """A base for what would be a frozen dataclass; its fields are the parameters of __init__.

    Equal fields make equal objects of one class. Nothing changes one.
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
        """Return one with other values of some fields."""
        return type(self)(**{**self._fields(), **changes})
