# SPDX-License-Identifier: MIT
"""The source of convert if it is not one whole image: several images, a snapshot, or a damaged one."""

from __future__ import annotations

from contextlib import ExitStack

from pydiskimg.cli.arguments import open_source
from pydiskimg.cli.output import tell
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.joined import JoinedSource
from pydiskimg.transfer.salvage import SalvagedSource

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydiskimg.cli import Arguments
    from pydiskimg.errors import DiskImageError
    from pydiskimg.images.references import AllowedDirectory
    from pydiskimg.protocols import ImageSource

_SHOWN = 100  # warnings; a damaged image may lead to a million of them


def open_sources(arguments: Arguments, names: Sequence[str], policy: AllowedDirectory | None) -> ImageSource:
    """Open the images of these names as one Source, as the arguments request."""
    with ExitStack() as failure:
        opened: list[ImageSource] = []
        for name in names:
            opened.append(_open(arguments, name, policy))
            failure.callback(opened[-1].close)
        failure.pop_all()
    return opened[0] if len(opened) == 1 else JoinedSource(opened)


def _open(arguments: Arguments, name: str, policy: AllowedDirectory | None) -> ImageSource:
    snapshot = arguments.snapshot
    if snapshot is not None:
        from pydiskimg.cli.snapshot_choice import chosen_snapshot

        snapshot = chosen_snapshot(name, getattr(name, "image_format", arguments.format), snapshot)
    source = open_source(name, format=arguments.format, references=policy, snapshot=snapshot)
    return SalvagedSource(source, _Warnings(name, quiet=arguments.quiet)) if arguments.salvage else source


class _Warnings:
    """Reports lost bytes, a limited number of times; the last warning says that there are more."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self._name = name
        self._left = 0 if quiet else _SHOWN

    def __call__(self, offset: int, length: int, error: DiskImageError) -> None:
        if not self._left:
            return
        self._left -= 1
        tell(f"{self._name}: warning: {length} bytes at offset {offset} cannot be read and become zeros: {error}")
        if not self._left:
            tell(f"{self._name}: warning: further unreadable bytes are not reported")
