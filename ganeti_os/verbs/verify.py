# SPDX-License-Identifier: MIT
"""verify: check the OS parameters of an instance."""

from __future__ import annotations

import logging

from ganeti_os.log import Messages
from ganeti_os.request import Request
from ganeti_os.settings.settings import Settings, check_contradictions

log = logging.getLogger(__name__)


def run(request: Request, settings: Settings, messages: Messages) -> None:  # noqa: ARG001 - the signature of a verb
    """Refuse settings that contradict each other; each parameter was checked when Settings was made."""
    check_contradictions(settings)
    log.debug("%d OS parameters, each acceptable", len(request.parameters))
