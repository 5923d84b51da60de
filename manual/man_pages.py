# SPDX-License-Identifier: MIT
"""pydiskimg(1), and a page for each subcommand, from the parsers of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from manual.roff import bold, entry, example, head, italic, literal, prose, references, section, words
from pydiskimg.cli.amend import KEYS as AMEND_KEYS
from pydiskimg.cli.command_line import CommandParser, command_parsers, left_out
from pydiskimg.cli.commands import COMMANDS, DESCRIPTION, EXIT_STATUS, GROUPS
from pydiskimg.cli.help_text import left_out_text
from pydiskimg.cli.image_options import option_keys

_OPTION_KEYS = {
    "convert": option_keys(),
    "create": option_keys(empty=True),
    "measure": option_keys(empty=True),
    "amend": AMEND_KEYS,
}
_ENVIRONMENT = {
    "COLUMNS": "width of --help and of drawings, in place of the terminal's",
    "NO_COLOR": "if it is set and not empty, nothing is coloured",
    "SOURCE_DATE_EPOCH": "seconds since 1970: the time that build writes in place of the present one",
    "http_proxy, https_proxy, no_proxy": "proxies for images at http:// and https:// addresses",
}
_OTHERS = (("qemu-img", 1), ("sfdisk", 8), ("virt-filesystems", 1), ("bmaptool", 1))


def pages() -> dict[str, str]:
    """Return each page by the name of its file."""
    found = {"pydiskimg.1": _overview()}
    for command in COMMANDS:
        found[f"{_page(command)}.1"] = _command(command)
    return found


def _page(command: str) -> str:
    return f"pydiskimg-{command}"


def _overview() -> str:
    commands = "".join(
        f".SS {title[0].upper()}{title[1:]}\n"
        + "".join(entry(f"{bold(_page(name))}(1)", text) for name, text in group.items())
        for title, group in GROUPS.items()
    )
    synopsis = f".B pydiskimg\n{italic('COMMAND')}\n[{italic('OPTION')} ...]\n{italic('OPERAND')} ...\n"
    synopsis += f".br\n.B pydiskimg help\n[{italic('COMMAND')}]\n.br\n.B pydiskimg \\-\\-version\n"
    options = entry(f"{bold('-h')}, {bold('--help')}", "print the list of commands, or the help of a command")
    options += entry(f"{bold('-V')}, {bold('--version')}", "print the version")
    environment = "".join(entry(bold(name), text) for name, text in _ENVIRONMENT.items())
    return (
        head("pydiskimg", 1)
        + section("name", "pydiskimg \\- disk images, partitions, file systems and their files\n")
        + section("synopsis", synopsis)
        + section("description", prose(DESCRIPTION))
        + section("commands", commands)
        + section("options", options)
        + section("exit status", prose(EXIT_STATUS.removeprefix("Exit status: ")))
        + section("environment", environment)
        + section("see also", references([*_OTHERS, ("ganeti-os-image", 7)]))
    )


def _command(command: str) -> str:
    parser, *actions = command_parsers(command)
    group = next(names for names in GROUPS.values() if command in names)
    others = [("pydiskimg", 1), *((_page(name), 1) for name in group if name != command)]
    description, _, status = (parser.description or "").partition(" Exit status: ")
    notes = [parser.epilog or "", left_out_text(left_out(command, parser))]
    keys = "".join(entry(bold(f"{key}="), values) for key, values in _OPTION_KEYS.get(command, {}).items())
    return (
        head(_page(command), 1)
        + section("name", f"{literal(_page(command))} \\- {COMMANDS[command]}\n")
        + section("synopsis", ".br\n".join(map(_synopsis, actions or [parser])))
        + section("description", prose(description) + "".join(map(_paragraph, notes)))
        + section("arguments", "" if actions else _entries(_operands(parser)))
        + section("options", _entries(_options(parser)))
        + section("actions", "".join(map(_action, actions)))
        + section("keys of -o".replace("-", "\\-"), keys)
        + section("exit status", prose(status or EXIT_STATUS.removeprefix("Exit status: ")))
        + section("examples", example(parser.examples.splitlines()))
        + section("see also", references(others))
    )


def _action(parser: CommandParser) -> str:
    """Return the description of an action of a subcommand."""
    name = parser.prog.rpartition(" ")[2]
    body = f".SS {literal(name)}\n{prose(parser.description or '')}{_entries([*_operands(parser), *_options(parser)])}"
    return body + ".PP\nExamples:\n.PP\n" + example(parser.examples.splitlines())


def _paragraph(text: str) -> str:
    return f".PP\n{prose(text)}" if text else ""


def _entries(actions: list[argparse.Action]) -> str:
    return "".join(entry(_tag(action), action.help or "") for action in actions)


def _operands(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings and action.help != argparse.SUPPRESS]


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings and action.help != argparse.SUPPRESS]


def _tag(action: argparse.Action) -> str:
    """Return an option in all its spellings, or an operand."""
    if not action.option_strings:
        return italic(str(action.metavar))
    value = _value(action)
    return ", ".join(bold(name) + (f" {value}" if value else "") for name in action.option_strings)


def _value(action: argparse.Action) -> str:
    """Return the text after the option: a name for the value, or its choices."""
    if action.nargs == 0:
        return ""
    if action.metavar is None and action.choices is not None:
        return "{" + ",".join(bold(str(choice)) for choice in action.choices) + "}"
    return italic(str(action.metavar or action.dest.upper()))


def _synopsis(parser: argparse.ArgumentParser) -> str:
    """Return the line that names all options, in brackets where they may be left out, and the operands."""
    return f".B {literal(parser.prog)}\n" + words([*_option_words(parser), *map(_operand_word, _operands(parser))])


def _option_words(parser: argparse.ArgumentParser) -> Iterator[str]:
    exclusive = {id(action): group for group in parser._mutually_exclusive_groups for action in group._group_actions}
    for action in _options(parser):
        group = exclusive.get(id(action))
        if group is None:
            word = _short(action)
            yield word if action.required else f"[{word}]"
        elif action is group._group_actions[0]:
            yield f"[{' | '.join(map(_short, group._group_actions))}]"


def _short(action: argparse.Action) -> str:
    if isinstance(action, argparse.BooleanOptionalAction):
        return " | ".join(map(bold, action.option_strings))
    return " ".join(filter(None, (bold(action.option_strings[0]), _value(action))))


def _operand_word(action: argparse.Action) -> str:
    name = italic(str(action.metavar))
    several = f"{name} ..." if action.nargs in ("+", "*") else name
    return f"[{several}]" if action.nargs in ("?", "*") else several
