# SPDX-License-Identifier: MIT
"""Count the references to the clusters of a qcow2 file for purposes other than a comparison."""

from __future__ import annotations

from pydiskimg.images.qcow2.check.areas import REFCOUNT_TABLE
from pydiskimg.images.qcow2.check.image import ImageCheck
from pydiskimg.startup import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydiskimg.images.qcow2.check.areas import Area
    from pydiskimg.images.qcow2.check.reference_counter import ReferenceCounter
    from pydiskimg.images.qcow2.header import Header
    from pydiskimg.protocols import Source


class References(ImageCheck):
    """Counts references in windows, which are passed on one after the other.

    is_rebuilt leaves out the refcount table and its blocks, which will be replaced.
    """

    def __init__(
        self, file: Source, header: Header, use: Callable[[ReferenceCounter], None], *, is_rebuilt: bool
    ) -> None:
        super().__init__(file, header, -(-file.size // header.cluster_size), None)
        self._use = use
        self._is_rebuilt = is_rebuilt

    def is_counted(self, area: Area) -> bool:
        return not self._is_rebuilt or area.what != REFCOUNT_TABLE

    def count_refcount_blocks(self, counter: ReferenceCounter) -> None:
        if not self._is_rebuilt:
            super().count_refcount_blocks(counter)

    def use(self, counter: ReferenceCounter) -> None:
        self._use(counter)
