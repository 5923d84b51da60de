# SPDX-License-Identifier: MIT
"""convert of what is at an address whose server sends the whole file only."""

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
    """Give SRC from front to back where error says that its server has no ranges; raise error otherwise.

    An address was chosen by the administrator, so that the first bytes decide of which format the image is.
    """
    needs_ranges = arguments.used or arguments.verify or arguments.snapshot is not None
    if not isinstance(error, NoRangesError) or needs_ranges:
        raise error
    client = Client(agent="pydiskimg")
    with open_body(client, parse_address(arguments.source)) as body:
        format_name = arguments.format or recognised(body.peek(_LOOK_AT)).name
        with stream_of(body, format=None if format_name == "raw" else format_name) as stream:
            yield stream
