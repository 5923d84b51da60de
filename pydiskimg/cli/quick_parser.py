# SPDX-License-Identifier: MIT
"""The common forms of a subcommand, understood without argparse: to import that takes as long as to copy 30 MiB.

A subcommand declares its common options by the same calls of add_argument() for both.
"""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, Protocol, TypeAlias

    Arguments: TypeAlias = "argparse.Namespace | QuickArguments"

    class Parser(Protocol):
        """What both parsers have."""

        def add_argument(self, *names: str, **how: Any) -> Any: ...

        def set_defaults(self, **values: Any) -> None: ...

        def error(self, message: str) -> NoReturn: ...


class UncommonError(Exception):
    """The words are rare or wrong in some way, and argparse is to say in which."""


class QuickArguments:
    """What the words say; an option that is not among the common ones was not given."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, _: str) -> Any:
        return None


class QuickParser:
    """Has of argparse's parser what declares a flag, an option with one value and an operand."""

    def __init__(self) -> None:
        self._options: dict[str, tuple[str, dict[str, Any]]] = {}
        self._operands: list[str] = []
        self._values: dict[str, Any] = {}

    def add_argument(self, *names: str, **how: Any) -> None:
        if not names[0].startswith("-"):
            self._operands.append(names[0])
            return
        dest = how.get("dest") or max(names, key=len).lstrip("-").replace("-", "_")
        self._values[dest] = how.get("default", False if "action" in how else None)
        self._options.update(dict.fromkeys(names, (dest, how)))

    def set_defaults(self, **values: Any) -> None:
        self._values |= values

    def error(self, _: str) -> NoReturn:
        raise UncommonError

    def parse(self, words: Sequence[str]) -> QuickArguments:
        """Return what argparse would; raise UncommonError for words that are anything but common ones."""
        found = QuickArguments(self._values)
        operands = []
        rest = iter(words)
        for word in rest:
            if word == "-" or not word.startswith("-"):
                operands.append(word)
                continue
            name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            dest, how = self._options.get(name) or self.error(name)
            if "action" not in how:
                setattr(found, dest, self._value(how, value if equals else next(rest, "")))
            elif equals:
                self.error(word)
            else:
                setattr(found, dest, True)
        if len(operands) != len(self._operands):
            self.error("operands")
        for dest, word in zip(self._operands, operands, strict=True):
            setattr(found, dest, word)
        return found

    def _value(self, how: dict[str, Any], word: str) -> object:
        """Check a value: it is one of the choices, and what the option's type makes of it."""
        if word not in how.get("choices", (word,)):
            self.error(word)
        convert: Callable[[str], object] = how.get("type", str)
        try:
            return convert(word)
        except Exception:  # noqa: BLE001 - argparse's own, too, which is not imported; it says what is wrong
            self.error(word)


def run_quickly(
    words: Sequence[str], declare: Callable[[Parser], None], run: Callable[[QuickArguments], object]
) -> bool:
    """Run a subcommand on words; return False, with nothing done, when they are not of a common form or wrong."""
    parser = QuickParser()
    declare(parser)
    try:
        run(parser.parse(words))
    except UncommonError:
        return False
    return True
