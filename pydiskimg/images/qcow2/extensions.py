# SPDX-License-Identifier: MIT
"""Header extensions of a qcow2 file: bounded, and told apart (QEMU docs/interop/qcow2, "Header extensions").

Imports nothing but the layout: the fastest commands come through here.
"""

from __future__ import annotations

from pydiskimg.errors import InvalidImageError
from pydiskimg.images.qcow2 import layout
from pydiskimg.text import quoted

_KEPT = (
    layout.EXTENSION_BACKING_FORMAT,
    layout.EXTENSION_FEATURE_NAMES,
    layout.EXTENSION_DATA_FILE,
    layout.EXTENSION_BITMAPS,
    layout.EXTENSION_CRYPTO,
)


def read_extensions(head: bytes, start: int, end: int, *, name: str) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """Return the types that are there, in their order, and the data of those that are understood, by type.

    head is the first cluster; [start, end) of it is searched. Of two extensions of one type the last one counts.
    Raises InvalidImageError (name is the image's) when one of them is longer than what is left.
    """
    types: dict[int, None] = {}
    found: dict[int, bytes] = {}
    end = min(end, len(head))
    at = start
    while at + layout.EXTENSION.size <= end:
        kind, length = layout.EXTENSION.unpack_from(head, at)
        at += layout.EXTENSION.size
        if length > end - at:
            raise InvalidImageError(
                f"{name}: qcow2 header: the extension 0x{kind:08x} at byte {at - layout.EXTENSION.size} has {length} "
                f"bytes, and {end - at} are left in the first cluster; the image is truncated or corrupt"
            )
        if kind == layout.EXTENSION_END:
            break
        types[kind] = None
        if kind in _KEPT:
            found[kind] = head[at : at + length]
        at += -(-length // 8) * 8
    return tuple(types), found


def extensions_of(head: bytes, header_length: int, *, name: str) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """Return what read_extensions() does for the first cluster: they end where the backing file's name begins."""
    backing_offset = layout.HEADER_V2.unpack_from(head)[2]
    end = backing_offset if 0 < backing_offset < len(head) else len(head)
    return read_extensions(head, header_length, end, name=name)


def feature_list(unknown: int, names: bytes) -> str:
    """Return "incompatible features 5 ('name'), 6" for the bits of unknown; names is the feature name table."""
    whole = len(names) - len(names) % layout.FEATURE_NAME.size
    table = {bit: name.rstrip(b"\0") for kind, bit, name in layout.FEATURE_NAME.iter_unpack(names[:whole]) if kind == 0}
    numbers = [bit for bit in range(64) if unknown >> bit & 1]
    texts = [f"{bit} ({quoted(table[bit])})" if bit in table else str(bit) for bit in numbers[:4]]
    more = f" and {len(numbers) - 4} more" if len(numbers) > 4 else ""
    return f"incompatible feature{'s' if len(numbers) > 1 else ''} {', '.join(texts)}{more}"
