# SPDX-License-Identifier: MIT
"""Extents: runs of bytes of one kind, and how neighbours are joined."""

from __future__ import annotations

from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import ClassVar, NoReturn


class Kind:
    """What the bytes of an extent are: Kind.DATA, Kind.ZERO or Kind.HOLE, three objects compared by identity.

    DATA is stored and must be read. ZERO is stored as zero: it reads as zero, also over backing data. A HOLE is
    not stored: it reads as zero, or as the backing file where there is one.

    >>> from pydiskimg import Kind, new_image, open_image
    >>> with new_image("holes.raw", 1 << 20) as disk:
    ...     disk.write(0, b"data")
    >>> with open_image("holes.raw") as image:
    ...     [extent.kind for extent in image.extents()]
    [Kind.DATA, Kind.HOLE]
    """

    __slots__ = ("_name",)

    DATA: ClassVar[Kind]
    ZERO: ClassVar[Kind]
    HOLE: ClassVar[Kind]

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"Kind.{self._name}"

    def __reduce__(self) -> tuple[object, ...]:
        return getattr, (Kind, self._name)


Kind.DATA, Kind.ZERO, Kind.HOLE = Kind("DATA"), Kind("ZERO"), Kind("HOLE")


class Extent:
    """A run of bytes of one Kind: an immutable value; equal extents hash alike.

    start and length are bytes, length is greater than 0, and end is start + length. The extents of a Source cover it
    from 0 to size, without gaps, overlaps, empty extents or two neighbours of one kind::

        0          64K               192K      256K = source.size
        |   DATA    |      HOLE       |  ZERO   |

    >>> from pydiskimg import Extent, Kind
    >>> extent = Extent(65536, 131072, Kind.HOLE)
    >>> extent.end
    196608
    """

    # Written by hand because an image has millions of extents: a frozen dataclass takes 3.5 times as long to make, and
    # importing dataclasses takes as long as all imports of a short command may take.
    __slots__ = ("kind", "length", "start")
    __match_args__ = ("start", "length", "kind")

    start: int
    length: int
    kind: Kind

    def __init__(self, start: int, length: int, kind: Kind) -> None:
        _set_start(self, start)
        _set_length(self, length)
        _set_kind(self, kind)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"an Extent does not change: {name}")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"an Extent does not change: {name}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Extent):
            return NotImplemented
        return self.start == other.start and self.length == other.length and self.kind is other.kind

    def __hash__(self) -> int:
        return hash((self.start, self.length, self.kind))

    def __repr__(self) -> str:
        return f"Extent(start={self.start}, length={self.length}, kind={self.kind})"

    def __reduce__(self) -> tuple[type[Extent], tuple[int, int, Kind]]:
        return Extent, (self.start, self.length, self.kind)

    @property
    def end(self) -> int:
        """The first byte after the extent."""
        return self.start + self.length


_set_start, _set_length, _set_kind = (vars(Extent)[name].__set__ for name in Extent.__match_args__)


def merged(extents: Iterable[Extent]) -> Iterator[Extent]:
    """Join neighbours of one kind and drop empty extents.

    The input must be ascending and without gaps. Only one extent is held in memory at a time.
    """
    current: Extent | None = None
    for extent in extents:
        if not extent.length:
            continue
        if current is not None and current.kind is extent.kind:
            current = Extent(current.start, current.length + extent.length, current.kind)
            continue
        if current is not None:
            yield current
        current = extent
    if current is not None:
        yield current
