# SPDX-License-Identifier: MIT
"""Progress of what is copied, compared or read back: bytes that are moved count, and those that cost nothing do not.

pieces   |  DATA  |   ZERO   |  DATA  |  HOLE  |
counted      yes    if zeros     yes      no
                   are written
"""

from __future__ import annotations

import threading

from pydiskimg.extents import Extent, Kind
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydiskimg.protocols import Progress
    from pydiskimg.transfer.pieces import PieceBatch


class Meter:
    """Progress across passes, from several threads; total and lengths are bytes.

    later are the pieces of a second pass, as far as they are known before the first, where ZERO counts.
    """

    def __init__(self, progress: Progress | None, total: int = 0, *, later: Iterable[Extent] = ()) -> None:
        self._progress = progress
        self._total = total
        self._later = later
        self._counts_zeros = False
        self._done = 0
        self._lock = threading.Lock()

    def begin(self, pieces: Iterable[Extent], *, counts_zeros: bool = False) -> None:
        """Begin a pass over pieces, of which counts_zeros says whether those of ZERO count; HOLE never does.

        Without a progress callback the pieces are not read.
        """
        if self._progress is not None:
            self.expect(_counted(pieces, zeros=counts_zeros) + _counted(self._later, zeros=True))
            self._later = ()
        self._counts_zeros = counts_zeros

    def expect(self, length: int) -> None:
        """Set the remaining number of bytes to length."""
        self._total = self._done + length

    def advance(self, length: int) -> None:
        """Report length more bytes as done."""
        if self._progress is None:
            return
        with self._lock:
            self._done += length
            # A file may get more data meanwhile; a total of 0 is one that is not known.
            self._progress(self._done, self._total and max(self._done, self._total))

    def piece_done(self, piece: Extent | PieceBatch) -> None:
        """Report a piece, or a batch, of the present pass as done."""
        if self._progress is None:  # most copies: a batch has up to hundreds of pieces to count
            return
        pieces = [piece] if isinstance(piece, Extent) else [*piece.data, *piece.zeros]
        self.advance(_counted(pieces, zeros=self._counts_zeros))


def _counted(pieces: Iterable[Extent], *, zeros: bool) -> int:
    """Return how many bytes of pieces count: those of DATA, and of ZERO with zeros."""
    return sum(piece.length for piece in pieces if _counts(piece, zeros))


def _counts(piece: Extent, zeros: bool) -> bool:
    return piece.kind is Kind.DATA or (zeros and piece.kind is Kind.ZERO)
