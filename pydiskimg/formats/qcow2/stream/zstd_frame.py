# SPDX-License-Identifier: MIT
"""How long a zstd frame is (RFC 8878, section 3.1.1), which the libraries do not tell of one that they read from."""

from __future__ import annotations

_MAGIC = b"\x28\xb5\x2f\xfd"
# Bytes of the dictionary's number and of the content's size, by their flags in the frame header's descriptor.
_DICTIONARY_SIZE = (0, 1, 2, 4)
_CONTENT_SIZE = (0, 2, 4, 8)
_SINGLE_SEGMENT, _CHECKSUM = 1 << 5, 1 << 2
_RLE_BLOCK, _RESERVED_BLOCK = 1, 3
_BLOCK_HEADER_SIZE, _CHECKSUM_SIZE = 3, 4


def frame_length(data: memoryview) -> int:
    """Return the bytes of the frame that data begins with. Raises ValueError when it does not, or ends before."""
    if data[:4] != _MAGIC or len(data) < len(_MAGIC) + 1:
        raise ValueError("it does not begin with a zstd frame")
    descriptor = data[4]
    at = 5 + _DICTIONARY_SIZE[descriptor & 3] + _CONTENT_SIZE[descriptor >> 6]
    if not descriptor & _SINGLE_SEGMENT:
        at += 1  # the window's descriptor
    elif not descriptor >> 6:
        at += 1  # a content's size of one byte
    is_last = False
    while not is_last:
        header = int.from_bytes(data[at : at + _BLOCK_HEADER_SIZE], "little")
        is_last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if at + _BLOCK_HEADER_SIZE > len(data) or kind == _RESERVED_BLOCK:
            raise ValueError("its last block is missing")
        at += _BLOCK_HEADER_SIZE + (1 if kind == _RLE_BLOCK else size)
    if descriptor & _CHECKSUM:
        at += _CHECKSUM_SIZE
    if at > len(data):
        raise ValueError("its end is missing")
    return at
