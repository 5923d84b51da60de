# SPDX-License-Identifier: MIT
"""The `pydiskimg` command. Its subcommands and options have qemu-img's names if qemu-img has them.

The code of `pydiskimg info` imports no slow modules: the whole command takes little longer than Python's own start.
Therefore the common forms of some subcommands are parsed without argparse, whose import takes as long as copying 30
MiB. A subcommand declares its common options by the same calls of add_argument() for both parsers.
"""

from __future__ import annotations

import os
import sys

from pydiskimg import __version__
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.linux.stdio import begin_process, end_process, keep_standard_descriptors
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn, Protocol, TypeAlias

    Arguments: TypeAlias = "argparse.Namespace | QuickArguments"

    class Parser(Protocol):
        """The interface of both parsers."""

        def add_argument(self, *names: str, **how: Any) -> Any: ...

        def set_defaults(self, **values: Any) -> None: ...

        def error(self, message: str) -> NoReturn: ...

    CommonForm: TypeAlias = tuple[Callable[[Parser], None], Callable[["QuickArguments"], "int | None"]]


_WITH_COMMON_FORM = (
    *("info", "convert", "cat", "ls", "stat", "measure", "resize", "snapshot", "check", "map", "compare"),
)
_ONLY_READ = ("hash", "df", "filesystems", "show", "bmap", "ls", "stat", "diff", "compare", "map", "measure")
_NOT_TOLD = {"compare": 4}  # unless 1 has another meaning: the images differ


class EmptyNameError(StorageError):
    """A name is empty, which an unset variable of a shell gives: wrong usage."""


def launch() -> NoReturn:
    """Run the command line and end the process: called by the launcher and `python -m pydiskimg`."""
    begin_process()
    try:
        status = main()
    except SystemExit as ended:  # argparse raises it
        status = ended.code if isinstance(ended.code, int) else 1
    end_process(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status: 0 done, 1 failed, 2 wrong usage, 128 and more ended by a signal.

    Wrong usage of qemu-img's subcommands is 1. A subcommand may return another status for other results (compare,
    check).
    """
    keep_standard_descriptors()
    if sys.stdout is None:  # Python sets a stream to None if its descriptor is closed
        from pydiskimg.cli.pipes import NotOpen

        sys.stdout = NotOpen()
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - open to the end
    if hasattr(sys.stdout, "reconfigure"):
        # a name in an image may have characters that the locale lacks
        sys.stdout.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if argv is None else list(argv)
    try:
        status = _run(words)
        sys.stdout.flush()
    except EmptyNameError as error:
        from pydiskimg.cli.command_line import wrong_usage

        _tell(str(error))
        return wrong_usage(words[0])
    except DiskImageError as error:
        _tell(str(error))
        return 1
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # the reader has closed its end, so the result was not wanted
            _tell(f"standard output: {error.strerror}")
        # The interpreter must not report an error either when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _NOT_TOLD.get(words[0], 1)
    except MemoryError:
        _tell("there is not enough memory; what was being written is not complete")
        return _NOT_TOLD.get(words[0], 1)
    except KeyboardInterrupt as error:
        from pydiskimg.cli.signals import how_ended

        said, status = how_ended(error, writes=not words or words[0] not in _ONLY_READ)
        _tell(said)
    return status


def print_version() -> None:
    """Print the result of --version."""
    print(f"pydiskimg {__version__}")


def _tell(text: str) -> None:
    from pydiskimg.cli.output import tell

    tell(text)


def _run(words: list[str]) -> int:
    if words in (["--version"], ["-V"]):
        print_version()
        return 0
    if words in (["--help"], ["-h"], ["help"]):
        from pydiskimg.cli.help_text import overview

        print(overview(), end="")
        return 0
    is_short = words[:1] == ["info"]  # too short to need more than a signal's default action
    if not is_short:
        _end_as_interrupted()  # before other imports, so that a signal's exit status is the same early and late
    common = _common_form(words[0]) if words else None
    if common is not None and (status := run_quickly(words[1:], *common)) is not None:
        return status
    if is_short:
        _end_as_interrupted()
    from pydiskimg.cli.command_line import run

    try:
        return run(words)
    except SystemExit:  # of --version and --help; their output must be complete like any result
        sys.stdout.flush()
        raise


def _end_as_interrupted() -> None:
    from pydiskimg.cli.signals import end_as_interrupted

    end_as_interrupted()


def _common_form(command: str) -> CommonForm | None:
    """Return declare_common() and run() of a subcommand that has a common form."""
    if command not in _WITH_COMMON_FORM:
        return None
    module = __import__(f"pydiskimg.cli.{command}", fromlist=["run"])  # importlib takes longer to import
    return module.declare_common, module.run


def is_negative_size(word: str) -> bool:
    """True for a word such as -1G: where it is the last one, it is an operand, as it is for qemu-img resize."""
    return word[:1] == "-" and word[1:2].isdecimal()


class UncommonError(Exception):
    """The words are rare or wrong, so that argparse must handle them."""


class QuickArguments:
    """The values of the words; an option that is not a common one has its default."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, _: str) -> Any:
        return None


class QuickParser:
    """The part of argparse's parser that declares a flag, an option with one value and an operand."""

    def __init__(self) -> None:
        self._options: dict[str, tuple[str, dict[str, Any]]] = {}
        self._operands: list[tuple[str, dict[str, Any]]] = []
        self._values: dict[str, Any] = {}

    def add_argument(self, *names: str, **how: Any) -> None:
        if not names[0].startswith("-"):
            self._operands.append((names[0], how))
            return
        dest = how.get("dest") or max(names, key=len).lstrip("-").replace("-", "_")
        self._values[dest] = how.get("default", False if "action" in how else None)
        self._options.update(dict.fromkeys(names, (dest, how)))

    def set_defaults(self, **values: Any) -> None:
        self._values |= values

    def error(self, _: str) -> NoReturn:
        raise UncommonError

    def parse(self, words: Sequence[str]) -> QuickArguments:
        """Return the result of argparse; raise UncommonError for words that are not of a common form."""
        found = QuickArguments(self._values)
        operands: list[str] = []
        rest, last = enumerate(words), len(words) - 1
        for number, word in rest:
            if word.startswith(("json:", "file:")):  # describes an image, or names it by a protocol
                self.error(word)
            if word == "-" or not word.startswith("-") or (number == last and is_negative_size(word)):
                operands.append(word)
                continue
            if operands and "nargs" in self._operands[-1][1]:  # argparse decides which operands these are
                self.error("order")
            name, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
            dest, how = self._options.get(name) or self.error(name)
            if "action" not in how:
                value = value if equals else next(rest, (0, ""))[1]
                if value.startswith("-") and value != "-" and not equals:  # an option instead of a value
                    self.error(value)
                setattr(found, dest, self._value(how, value))
            elif equals:
                self.error(word)
            else:
                setattr(found, dest, True)
        self._take_operands(found, operands)
        return found

    def _take_operands(self, found: QuickArguments, words: list[str]) -> None:
        """Set the operands, of which the last may take several words."""
        count = len(self._operands)
        several = self._operands[-1][1].get("nargs")
        if len(words) < count - (several == "*") or (len(words) > count and not several):
            self.error("operands")
        if several:
            dest, how = self._operands[-1]
            setattr(found, dest, [self._value(how, word) for word in words[count - 1 :]])
        for (dest, how), word in zip(self._operands[: count - bool(several)], words, strict=False):
            setattr(found, dest, self._value(how, word))

    def _value(self, how: dict[str, Any], word: str) -> object:
        """Check a value: it must be one of the choices, and is converted by the option's type."""
        if word not in how.get("choices", (word,)):
            self.error(word)
        convert: Callable[[str], object] = how.get("type", str)
        try:
            return convert(word)
        except Exception:  # noqa: BLE001 - argparse's own, too, which is not imported; it says what is wrong
            self.error(word)


def run_quickly(
    words: Sequence[str], declare: Callable[[Parser], None], run: Callable[[QuickArguments], int | None]
) -> int | None:
    """Run a subcommand on words and return its exit status.

    Return None, with nothing done, for words that are not of a common form, or wrong.
    """
    parser = QuickParser()
    declare(parser)
    try:
        return run(parser.parse(words)) or 0
    except UncommonError:
        return None
