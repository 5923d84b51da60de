# SPDX-License-Identifier: MIT
"""pydiskimg stat: show all metadata of files in an image."""

from __future__ import annotations

from pydiskimg.cli.file_facts import allocated_bytes, file_facts, other_times, shown, target_of
from pydiskimg.cli.options import add_output_option
from pydiskimg.cli.output import nested_lines, show
from pydiskimg.cli.tree_argument import READ, declare_tree_arguments, path_argument, tree_argument
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Any

    from pydiskimg.cli import Arguments, Parser
    from pydiskimg.fs.ext4.tree import ExtTree
_EXAMPLES = """\
pydiskimg stat disk.qcow2 /etc/shadow
pydiskimg stat -L --output json disk.qcow2 /etc/os-release
"""


def add_parser(subparsers: Any) -> None:
    """Declare the subcommand."""
    from pydiskimg.cli.references import add_references_option

    parser = subparsers.add_parser(
        "stat",
        description=f"Show mode, owners, times, extended attributes and more of the files PATH. {READ}",
        examples=_EXAMPLES,
    )
    declare_common(parser)
    add_references_option(parser)
    parser.set_defaults(run=run)


def declare_common(parser: Parser) -> None:
    """Declare the options of the common form."""
    parser.add_argument("-L", "--dereference", action="store_true", help="follow PATH where it is a symlink")
    add_output_option(parser)
    declare_tree_arguments(parser)
    parser.add_argument("paths", metavar="PATH", nargs="+", type=path_argument, help="file in the image")


def run(arguments: Arguments) -> None:
    """Print the facts of the files in the arguments."""
    with tree_argument(arguments) as tree:
        found = [_facts(tree, path, follow=arguments.dereference) for path in arguments.paths]
        lines = (line for facts in found for line in (*nested_lines(facts), *([""] if facts is not found[-1] else [])))
        show(found, lines, arguments.output)


def _facts(tree: ExtTree, path: str, *, follow: bool) -> dict[str, Any]:
    status = tree.stat(path, follow_symlinks=follow)
    attributes = tree.attributes(path, follow_symlinks=follow)
    return {
        **file_facts(path, status, target_of(tree, path, status)),
        **other_times(status),
        **allocated_bytes(status),
        "attributes": {shown(name): _value(value) for name, value in attributes.items()},
    }


def _value(value: bytes) -> str:
    """Return an attribute's value as text if it is text, with or without a NUL at its end, otherwise as 0x..."""
    try:
        text = value.removesuffix(b"\0").decode()
    except UnicodeDecodeError:
        text = "\0"
    return text if text.isprintable() else f"0x{value.hex()}"
