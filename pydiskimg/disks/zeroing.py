# SPDX-License-Identifier: MIT
"""The ladder of ways to make a range read as zero: the cheapest that works is found once and kept."""

from __future__ import annotations

import errno

from pydiskimg.errors import storage_error
from pydiskimg.startup import TYPE_CHECKING
from pydiskimg.units import MIB

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_ZEROS = bytes(MIB)

# Errors of kernels and devices that cannot zero in this way. EIO and EREMOTEIO come from devices that reject the
# command itself (WRITE SAME, WRITE ZEROES): writing zeros then either works or fails with the true error.
_CANNOT = frozenset(
    {
        errno.EOPNOTSUPP,
        errno.ENOSYS,
        errno.ENOTTY,
        errno.EINVAL,
        errno.ENODEV,
        errno.EPERM,
        errno.EIO,
        errno.EREMOTEIO,
    }
)


class Rung:
    """A way to zero: zero(offset, length) in bytes; raises OSError if it does not work.

    frees is True for a way that releases blocks instead of writing to them, so that its time does not grow with the
    range.
    """

    __slots__ = ("frees", "name", "zero")

    def __init__(self, name: str, zero: Callable[[int, int], None], *, frees: bool = False) -> None:
        self.name = name
        self.zero = zero
        self.frees = frees


class ZeroLadder:
    """Zeroes by the first rung that works; the last resort is writing zeros.

    A rung that the system does not support is logged and never tried again. alignment is bytes: the rungs get offsets
    and lengths that are multiples of it, and the unaligned ends are written. Safe from several threads.
    """

    def __init__(
        self, name: str, rungs: Sequence[Rung], *, write: Callable[[int, memoryview], None], alignment: int
    ) -> None:
        self._name = name
        self._rungs = tuple(rungs)
        self._write = write
        self._alignment = alignment

    @property
    def current(self) -> str:
        """The name of the rung for the next range."""
        return self._rungs[0].name if self._rungs else "written zeros"

    @property
    def frees(self) -> bool:
        """True when the next range is freed and nothing is written to it."""
        return bool(self._rungs) and self._rungs[0].frees

    def zero(self, offset: int, length: int) -> None:
        """Make [offset, offset + length) read as zero. Raises StorageError."""
        middle, middle_end = self._aligned(offset, length)
        self._write_zeros(offset, middle - offset)
        self._climb(middle, middle_end - middle)
        self._write_zeros(middle_end, offset + length - middle_end)

    def free(self, offset: int, length: int) -> bool:
        """Make [offset, offset + length) read as zero as zero() does, if that frees blocks.

        Returns False, with the range unchanged, if that is not possible.
        """
        middle, middle_end = self._aligned(offset, length)
        rungs = self._rungs
        if not rungs or not rungs[0].frees or not self._attempt(rungs, middle, middle_end - middle):
            return False
        self._write_zeros(offset, middle - offset)
        self._write_zeros(middle_end, offset + length - middle_end)
        return True

    def _aligned(self, offset: int, length: int) -> tuple[int, int]:
        """Return the start and end of the part of the range that the rungs can zero."""
        end = offset + length
        middle = min(-(-offset // self._alignment) * self._alignment, end)
        return middle, max(end // self._alignment * self._alignment, middle)

    def _climb(self, offset: int, length: int) -> None:
        while length and (rungs := self._rungs):
            if self._attempt(rungs, offset, length):
                return
        self._write_zeros(offset, length)

    def _attempt(self, rungs: tuple[Rung, ...], offset: int, length: int) -> bool:
        """Zero by the first of the rungs; False if it does not work here; it is then not tried again."""
        rung = rungs[0]
        while length:
            try:
                rung.zero(offset, length)
            except InterruptedError:
                continue
            except OSError as error:
                if error.errno not in _CANNOT:
                    raise storage_error(
                        error, self._name, f"cannot zero {length} bytes at offset {offset} ({rung.name})"
                    ) from error
                # Remove only the rung that failed: another thread may have dropped it already.
                if self._rungs is rungs:
                    self._rungs = rungs[1:]
                    self._log(rung, error)
                return False
            break
        return True

    def _log(self, rung: Rung, error: OSError) -> None:
        from logging import getLogger  # takes longer to import than a small disk to write, and is rarely needed

        getLogger(__name__).info("%s: %s does not work here (%s); using %s", self._name, rung.name, error, self.current)

    def _write_zeros(self, offset: int, length: int) -> None:
        zeros = memoryview(_ZEROS)
        end = offset + length
        while offset < end:
            piece = min(end - offset, len(zeros))
            self._write(offset, zeros[:piece])
            offset += piece
