# SPDX-License-Identifier: MIT
"""first version"""

from __future__ import annotations

from pydiskimg.fs.ext4.doubt import NotBelievedError
from pydiskimg.fs.ext4.volume import Volume
from pydiskimg.protocols import Source


def after_recovery(source: Source, volume: Volume) -> tuple[Source, int]:
    if volume.needs_recovery:
        raise NotBelievedError(volume.name, "its journal has changes that are not yet in their places")
    return source, 0
