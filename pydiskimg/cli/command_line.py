# SPDX-License-Identifier: MIT
"""Turn words into a subcommand and its arguments, by argparse."""

from __future__ import annotations

import argparse
import sys
from importlib import import_module

from pydiskimg.cli import is_negative_size, print_version
from pydiskimg.cli.commands import COMMANDS
from pydiskimg.cli.help_text import example_lines, help_width, left_out_text, overview, wrapped
from pydiskimg.cli.virt_words import in_our_words
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, NoReturn

    from _typeshed import SupportsWrite

# Subcommands of qemu-img whose images can be described.
_TAKE_DESCRIPTIONS = {
    *("amend", "bitmap", "check", "commit", "compare", "convert", "info", "map", "measure", "rebase", "resize"),
    *("snapshot", "dd"),
}
_QEMU_IMG = {"create", *_TAKE_DESCRIPTIONS}
# What a subcommand of qemu-img has and ours does not, and why: --help prints it, in the words of docs/commands.md.
_SECRETS = {"--object": "secrets are for encrypted images, which are refused by name"}
LEFT_OUT = dict.fromkeys(_QEMU_IMG, _SECRETS)
_WRONG_USAGE = 2  # argparse's exit status
_NO_VALUE = "ignored explicit argument"
_MISSING = "the following arguments are required:"
# argparse's messages, and ours instead.
_MESSAGES = {
    _NO_VALUE: "takes no value; found",
    "the following arguments are required: COMMAND": "a command is missing; pydiskimg --help lists them",
    _MISSING: "missing:",
    "[SRC2 ...] DST": "DST",
    "expected one argument": "the value is missing",
}

# argparse looks for a translation of each of its texts, with up to 250 calls of stat(); _MESSAGES has the originals.
setattr(argparse, "_", lambda text: text)  # noqa: B010 - which argparse has no other way to ask for


def run(words: Sequence[str]) -> int:
    """Run the subcommand in words and return its exit status; argparse exits if the usage is wrong."""
    words = in_our_words(_with_size_last(_asked_for_help(words)))
    # A subcommand is imported only when it is named: neither a short command nor --help must wait for the others.
    wanted = words[:1] if words[:1] and words[0] in COMMANDS else [*COMMANDS]
    try:
        if words[:1] and words[0] not in COMMANDS:
            _refuse_first(words[0], _parser(wanted, ()))
        arguments, rest = _parser(wanted, [name for name in wanted if name in words]).parse_known_args(words)
        if rest and not _taken_late(arguments, rest) and not _more_operands(arguments, rest):
            arguments.parser.error(_misplaced(rest, arguments.parser))
        if words[0] in _TAKE_DESCRIPTIONS - {"dd"} and _describes(arguments, words):
            from pydiskimg.cli.described import resolve_descriptions

            resolve_descriptions(arguments)
        status: int | None = arguments.run(arguments)
    except SystemExit as ended:
        if ended.code == _WRONG_USAGE:
            sys.exit(wrong_usage(words[0] if words else ""))
        raise
    return status or 0


def _refuse_first(word: str, parser: argparse.ArgumentParser) -> None:
    """End with wrong usage where the first word is neither a command nor an option."""
    if not word.startswith("-"):
        names = {name: name for name in COMMANDS} | {"version": "--version"}
        parser.error(f"{word!r} is not a command{_of_another_tool(word) or _meant(word, names)}")
    if not any(name.startswith(word) for name in parser._option_string_actions):  # noqa: SLF001
        parser.error(_misplaced([word], parser))


def _describes(arguments: argparse.Namespace, words: Sequence[str]) -> bool:
    """True if an image may be described instead of named, or named with a protocol."""
    by_options = getattr(arguments, "image_opts", False) or getattr(arguments, "target_image_opts", False)
    return by_options or any(word.startswith(("json:", "file:")) for word in words)


def wrong_usage(command: str) -> int:
    """Return the exit status of a subcommand that is called wrongly."""
    is_one = command in _QEMU_IMG and command != "compare"  # whose status 1 says that the images differ
    return 1 if is_one else _WRONG_USAGE


def _with_size_last(words: Sequence[str]) -> Sequence[str]:
    """Return words so that argparse takes a last one such as -1G as an operand."""
    if len(words) > 1 and is_negative_size(words[-1]) and "--" not in words:
        return [*words[:-1], "--", words[-1]]
    return words


def _taken_late(arguments: argparse.Namespace, words: Sequence[str]) -> bool:
    """True if words are an optional operand after options: older argparse takes it for missing there."""
    name: str | None = getattr(arguments, "optional_operand", None)
    if name is None or len(words) != 1 or words[0].startswith("-") or getattr(arguments, name) is not None:
        return False
    arguments.parser.parse_args(["--", arguments.file, words[0]], namespace=arguments)
    return True


def _more_operands(arguments: argparse.Namespace, words: Sequence[str]) -> bool:
    """True if words are more operands of a subcommand that accepts any number of them, before and after its options."""
    name: str | None = getattr(arguments, "more_operands", None)
    if name is None or any(word.startswith("-") and word != "-" for word in words):
        return False
    setattr(arguments, name, [*getattr(arguments, name), *words])
    return True


def _asked_for_help(words: Sequence[str]) -> Sequence[str]:
    """Return words with `help`, `help COMMAND` and `help partition ACTION` replaced by the corresponding options."""
    return [*words[words[:2] == ["help", "help"] :][1:], "--help"] if words[:1] == ["help"] else words


def _of_another_tool(word: str) -> str:
    """Return the end of a sentence: our command for a word that is one of another tool, if it is."""
    from pydiskimg.cli.other_words import command_meant

    known = word.removeprefix("virt-")
    meant = command_meant(word) or (known if known in COMMANDS else "")
    return f"; did you mean {meant}?" if meant else ""


def _misplaced(words: Sequence[str], parser: argparse.ArgumentParser) -> str:
    """Return the problem of unexpected words, among which there may be an option, misspelt or of another tool."""
    from pydiskimg.cli.other_words import why_not

    command = parser.prog.partition(" ")[2]
    for word in words:
        if word.startswith("-") and word != "-":
            option = word.partition("=")[0]
            if reason := why_not(command, option):
                return f"there is no option {option}: {reason}"
            names = {name.lstrip("-"): name for name in parser._option_string_actions if len(name) > 2}  # noqa: SLF001
            return f"there is no option {option}{_meant(option.lstrip('-'), names)}"
    reason = why_not(command, "")
    return f"{words[0]!r} is one argument too many{reason and f': {reason}'}"


def _meant(word: str, known: Mapping[str, str]) -> str:
    """Return the end of a sentence: the name of the known word that is similar, if any is."""
    from difflib import get_close_matches  # imported here: it takes long to import

    found = get_close_matches(word, known, 1)
    return f"; did you mean {known[found[0]]}?" if found else ""


def _parser(commands: Sequence[str], named: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of a command line that has these subcommands; only the named ones have their options."""
    parser = _Overview(prog="pydiskimg")
    parser.add_argument("-V", "--version", action=_Version, help="print the version")
    subparsers = parser.add_subparsers(prog="pydiskimg", metavar="COMMAND", required=True, parser_class=CommandParser)
    described = _Subparsers(subparsers)
    for name in commands:
        if name in named:
            import_module(f"pydiskimg.cli.{name.replace('-', '_')}").add_parser(described)
        else:
            described.add_parser(name)
    for name, subparser in subparsers.choices.items():
        subparser.set_defaults(parser=subparser)
        if name in named and name in _TAKE_DESCRIPTIONS:
            subparser.add_argument(
                "--image-opts",
                action="store_true",
                help="describe images instead of naming them: driver=FORMAT,file.filename=FILE and, for raw, offset= "
                "and size=",
            )
        if name in named and name in _QEMU_IMG:
            from pydiskimg.cli.long_names import add_long_names

            add_long_names(name, subparser)
    return parser


def command_line_parser() -> argparse.ArgumentParser:
    """Return the parser that has all subcommands with all their options, which no command needs at once."""
    return _parser([*COMMANDS], [*COMMANDS])


def command_parsers(command: str) -> list[CommandParser]:
    """Return the parser of a subcommand, followed by those of its actions, if it has any."""
    (top,) = _actions_of(_parser([command], [command]))
    return [top, *_actions_of(top)]


def _actions_of(parser: argparse.ArgumentParser) -> list[CommandParser]:
    return [
        found
        for action in parser._actions  # noqa: SLF001 - which argparse has no other way to ask for
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
        for found in action.choices.values()
    ]


def left_out(command: str, parser: argparse.ArgumentParser) -> dict[str, str]:
    """Return the options of qemu-img's subcommand that parser lacks or refuses, and why."""
    actions = parser._option_string_actions  # noqa: SLF001 - which argparse has no other way to ask for
    return {
        option: reason
        for option, reason in LEFT_OUT.get(command, {}).items()
        if option not in actions or actions[option].help == argparse.SUPPRESS
    }


class _Subparsers:
    """The place where a subcommand declares itself; its line in the list of all is from COMMANDS."""

    def __init__(self, action: Any) -> None:
        self._action = action

    def add_parser(self, name: str, **how: Any) -> Any:
        return self._action.add_parser(name, help=COMMANDS[name], **how)


class CommandParser(argparse.ArgumentParser):
    """Raises if its help cannot be printed, which argparse ignores since Python 3.12; all its texts are ours.

    examples are commands, one per line, at the end of the help.
    """

    def __init__(self, *, examples: str = "", **how: Any) -> None:
        super().__init__(**{"formatter_class": _Formatter, **how})
        self.examples = examples
        self.wordings = dict(_MESSAGES)
        self.other_word: Callable[[str], str] = lambda _: ""  # returns our word for a value, where another tool has it
        self._words: Sequence[str] = ()
        self._positionals.title = "arguments"
        if not self.add_help:  # -h has another meaning
            self.add_argument("--help", action="help", help="show this help message and exit")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse args as argparse does."""
        self._words = args or ()
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        from pydiskimg.cli.output import message_text

        if unknown := self._unknown(message):
            message = _misplaced([unknown], self)
        text = message_text(message)
        for argparses, ours in self.wordings.items():
            text = text.replace(argparses, ours)
        self.exit(_WRONG_USAGE, f"{self.prog}: error: {text}\n{self.format_usage()}")  # the sentence comes first

    def format_help(self) -> str:
        """Return the help, with qemu-img's missing options and the examples at its end."""
        plain = self.epilog
        missing = left_out_text(left_out(self.prog.partition(" ")[2], self))
        self.epilog = " ".join(filter(None, (plain, missing)))
        try:
            text = super().format_help()
        finally:
            self.epilog = plain
        if not self.examples:
            return text
        return text + "\n" + "".join(f"{line}\n" for line in example_lines(self.examples, help_width()))

    def _unknown(self, message: str) -> str | None:
        """Return an option that does not exist, where argparse's message is about what follows from that."""
        if message.startswith((_MISSING, "argument ACTION:")):
            return self._unknown_option()
        return self._unknown_letter() if _NO_VALUE in message else None

    def _unknown_option(self) -> str | None:
        """Return the first word that looks like an option and is not the beginning of a known one."""
        for word in self._words:
            if word == "--":
                break
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            is_option = word.startswith("-") and word != "-" and not is_negative_size(word)
            if is_option and not any(known.startswith(name) for known in self._option_string_actions):
                return word
        return None

    def _unknown_letter(self) -> str | None:
        """Return the first option that does not exist among letters after one dash, such as -a of -la."""
        for word in self._words:
            if word.startswith("-") and not word.startswith("--"):
                for letter in word[1:]:
                    known = self._option_string_actions.get(f"-{letter}")
                    if known is None:
                        return f"-{letter}"
                    if known.nargs != 0:
                        break  # the rest is its value
        return None

    def print_help(self, file: SupportsWrite[str] | None = None) -> None:
        print(self.format_help(), end="", file=file)

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuse a value that is not among the choices, and suggest a similar one."""
        if action.choices is not None and value not in action.choices:
            choices = [str(choice) for choice in action.choices]
            word = self.other_word(str(value))
            meant = f"; did you mean {word}?" if word else _meant(str(value), {choice: choice for choice in choices})
            raise argparse.ArgumentError(action, f"{value!r} is not one of {', '.join(choices)}{meant}")


class _Overview(CommandParser):
    """Its help is the list of all commands."""

    def format_help(self) -> str:
        """Return the list, which does not come from argparse."""
        return overview()


class _Formatter(argparse.HelpFormatter):
    """Gets the width from here, because shutil takes longer to import than all arguments, and breaks lines only at
    blanks.

    argparse makes a formatter for each declared argument, whether or not help is printed.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=help_width())

    def _format_action_invocation(self, action: argparse.Action) -> str:
        """Return the names of an option and then its value, which argparse repeats for each name before Python 3.13."""
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        value = self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(action.option_strings)} {value}"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return wrapped(text, width)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return "\n".join(indent + line for line in wrapped(text, width - len(indent)))


class _Version(argparse.Action):
    """Prints the version, and ends."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:  # noqa: A002
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print_version()
        parser.exit()
