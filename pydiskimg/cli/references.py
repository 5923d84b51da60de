# SPDX-License-Identifier: MIT
"""The option --allow-references DIR: the directory of files that an image may name."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from contextlib import AbstractContextManager
    from typing import Any

    from pydiskimg.cli import Arguments
    from pydiskimg.images.references import AllowedDirectory


def add_references_option(parser: argparse.ArgumentParser) -> None:
    """Add --allow-references DIR, which may be given once."""
    import argparse

    class Once(argparse.Action):
        def __call__(
            self, _parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object
        ) -> None:
            if not values:
                raise argparse.ArgumentError(self, "the name of the directory is empty")
            if getattr(namespace, self.dest) is not None:
                raise argparse.ArgumentError(self, "is given once only: one directory that holds them all")
            setattr(namespace, self.dest, values)

    parser.add_argument(
        "--allow-references",
        action=Once,
        metavar="DIR",
        help="open backing files and data files that an image names, if they are below DIR, which may be an http:// or "
        "https:// address (default: no such file is opened)",
    )


class _NoReferences:
    """Gives the policy that an image may name no files."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def references(arguments: Arguments) -> AbstractContextManager[AllowedDirectory | None]:
    """Return a context manager that gives the policy for open_image(); it must last until that has returned.

    Raises StorageError, when it is entered, for a directory that does not exist.
    """
    if arguments.allow_references is None:
        return _NoReferences()
    from pydiskimg.images.references import allow_references

    return allow_references(arguments.allow_references)
