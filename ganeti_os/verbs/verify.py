# SPDX-License-Identifier: MIT
"""verify: are the OS parameters that somebody set for an instance acceptable?"""

from __future__ import annotations

from ganeti_os.log import Messages
from ganeti_os.protocol import Request, RequestError
from ganeti_os.settings import Settings


def run(request: Request, settings: Settings, messages: Messages) -> None:  # noqa: ARG001 - the signature of a verb
    """Refuse every parameter: this definition publishes none."""
    if request.parameters:
        names = ", ".join(sorted(name.lower() for name in request.parameters))
        raise RequestError(f"this OS definition has no parameters; found {names}")
