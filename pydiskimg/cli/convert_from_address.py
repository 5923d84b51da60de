# SPDX-License-Identifier: MIT
"""convert from an address whose server sends only the whole file."""

from __future__ import annotations

from contextlib import contextmanager

from pydiskimg.errors import DiskImageError
from pydiskimg.images import recognised
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.transfer.receive import Stream, stream_of
from pydiskimg.web.address import parse_address
from pydiskimg.web.body import open_body
from pydiskimg.web.client import Client
from pydiskimg.web.errors import NoRangesError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pydiskimg.cli import Arguments

_LOOK_AT = 512


@contextmanager
def stream_instead(arguments: Arguments, error: DiskImageError) -> Iterator[Stream]:
    """Give SRC in order if error says that its server has no ranges; raise error otherwise.

    The administrator chose the address, so the first bytes determine the format of the image.
    """
    needs_ranges = arguments.used or arguments.verify or arguments.snapshot is not None
    if not isinstance(error, NoRangesError) or needs_ranges:
        raise error
    client = Client(agent="pydiskimg")
    with open_body(client, parse_address(arguments.source)) as body:
        format_name = arguments.format or recognised(body.peek(_LOOK_AT)).name
        with stream_of(body, format=None if format_name == "raw" else format_name) as stream:
            yield stream
