# SPDX-License-Identifier: MIT
"""Completion for bash, zsh and fish, by shtab, from the parsers of the command line."""

from __future__ import annotations

import argparse
from typing import Any

import shtab

from pydiskimg.cli.command_line import CommandParser, command_line_parser
from pydiskimg.cli.commands import COMMANDS

FILES = {"bash": "pydiskimg", "zsh": "_pydiskimg", "fish": "pydiskimg.fish"}
"""The name that each shell looks for."""

# The kinds of values, by their names in --help; all others are typed.
_PATHS = {
    **dict.fromkeys(("FILE", "FILE1", "FILE2", "IMAGE", "IMAGE1", "IMAGE2", "DISK", "DEVICE", "SRC"), shtab.FILE),
    **dict.fromkeys(("[SRC2 ...] DST", "BACKING", "BASE", "SOURCE", "TARBALL", "LOCAL"), shtab.FILE),
    **dict.fromkeys(("DIRECTORY", "DIR"), shtab.DIRECTORY),
}
# To bash, --output=json is three words; shtab's function knows an option and its value as two.
_BASH = """
_pydiskimg() {
  local -a words=()
  local index=$COMP_CWORD number word
  for number in "${!COMP_WORDS[@]}"; do
    word=${COMP_WORDS[number]}
    if [[ $word == = && $number -gt 0 && ${COMP_WORDS[number - 1]} == --* ]]; then
      if (( number == COMP_CWORD )); then
        words+=("")
      else
        (( number < COMP_CWORD )) && (( index -= 1 ))
      fi
    else
      words+=("$word")
    fi
  done
  local -a COMP_WORDS=("${words[@]}")
  local COMP_CWORD=$index
  _shtab_pydiskimg
}
complete -o bashdefault -F _pydiskimg pydiskimg
"""


def completion(shell: str) -> str:
    """Return the file for a shell."""
    parser = command_line_parser()
    (commands,) = (each for each in parser._actions if isinstance(each, argparse._SubParsersAction))
    _add_help(commands)
    for name, command in commands.choices.items():
        command.description = COMMANDS.get(name, command.description)  # one line in a menu
        _complete(command, shell)
    text: str = shtab.complete(parser, shell)
    return text + _BASH if shell == "bash" else text


def _add_help(commands: Any) -> None:
    """Declare `help COMMAND`, which the command line rewrites before it is parsed."""
    text = "show the help of a command"
    commands.choices["help"] = parser = CommandParser(prog="pydiskimg help", description=text)
    parser.add_argument("command", nargs="?", choices=[*COMMANDS], metavar="COMMAND", help="name of a command")
    commands._choices_actions.append(commands._ChoicesPseudoAction("help", [], text))


def _complete(parser: argparse.ArgumentParser, shell: str) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for each in action.choices.values():
                _complete(each, shell)
        elif action.choices is None and action.metavar in _PATHS:
            action.complete = _PATHS[str(action.metavar)]  # type: ignore[attr-defined]
        if action.metavar == "[SRC2 ...] DST":
            action.nargs = "+"
        if shell == "zsh" and action.nargs != 0 and action.option_strings:
            action.option_strings = [f"{name}=" if name.startswith("--") else name for name in action.option_strings]
