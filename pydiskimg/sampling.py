# SPDX-License-Identifier: MIT
"""Whether data is worth moving unseen: not when it may be zeros, and not when it has to come from a disk first."""

from __future__ import annotations

import errno
import os

from pydiskimg.units import KIB

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pydiskimg.protocols import Place

# One sample for each stretch, counted from the first byte: zeros in whole units of RUN_SIZE, as long as that together,
# have a sample with a whole unit behind it, wherever they are.
SAMPLE_STEP = 256 * KIB
SAMPLE_SIZE = 512
# Where a sample is zero, as much behind it is looked at, since a file is full of short runs of zeros.
RUN_SIZE = 64 * KIB

_ZEROS = bytes(RUN_SIZE)
_CANNOT = (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)


class Sampler:
    """Looks at data in samples; safe from several threads."""

    def __init__(self) -> None:
        self._flags = os.RWF_NOWAIT

    def hold_zeros(self, places: list[Place]) -> bool:
        """True when a sample of the places is the beginning of zeros.

        Raises OSError, also when a sample is not in the page cache: reads are larger than what a pipe holds, and bring
        a file in faster. A file system that does not tell is asked to bring everything in.
        """
        start = 0
        for fd, position, length in places:
            if not self._flags:
                os.posix_fadvise(fd, position, length, os.POSIX_FADV_WILLNEED)
            for at in range(-start % SAMPLE_STEP, length, SAMPLE_STEP):
                sample = self._sample(fd, position + at, min(SAMPLE_SIZE, length - at))
                if _is_zero(sample) and _is_zero(os.pread(fd, min(RUN_SIZE, length - at), position + at)):
                    return True
            start += length
        return False

    def _sample(self, fd: int, position: int, size: int) -> bytearray:
        sample, flags = bytearray(size), self._flags
        try:
            os.preadv(fd, [sample], position, flags)
        except BlockingIOError as error:
            raise OSError(errno.EAGAIN, "the image is not in the page cache") from error
        except OSError as error:
            if not flags or error.errno not in _CANNOT:
                raise
            self._flags = 0  # tmpfs, where it makes no difference, and network file systems
            return self._sample(fd, position, size)
        return sample


def _is_zero(data: bytes | bytearray) -> bool:
    return data == _ZEROS[: len(data)]
