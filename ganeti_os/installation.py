# SPDX-License-Identifier: MIT
"""One run of create: everything that its steps need to know."""

from __future__ import annotations

from dataclasses import dataclass

from ganeti_os.log import Messages
from ganeti_os.protocol import Request
from ganeti_os.settings import Settings
from pydiskimg.targets.descriptor import DescriptorDisk


@dataclass(frozen=True, slots=True)
class Installation:
    """disk is the instance's first disk, swap the disk that becomes swap as a whole (OS API 5); both are open.

    scripts are the paths of the enabled customisation scripts, in the order in which they run.
    """

    request: Request
    settings: Settings
    messages: Messages
    disk: DescriptorDisk
    swap: DescriptorDisk | None
    scripts: tuple[str, ...]
