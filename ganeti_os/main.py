# SPDX-License-Identifier: MIT
"""From a call by Ganeti to an exit status: 0 done, 1 failed, 2 wrong usage.

Standard output belongs to the export stream. Messages go to standard error, and the last line of a failure is the
sentence that the administrator needs, because Ganeti shows the tail of the log.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from ganeti_os.log import Messages
from ganeti_os.protocol import HelpRequested, Request, RequestError, UsageError, parse_request
from ganeti_os.settings import Paths, Settings, read_settings
from ganeti_os.verbs import create, verify
from pydiskimg.errors import DiskImageError

OS_NAME = "image"

Verb = Callable[[Request, Settings, Messages], None]
VERBS: Mapping[str, Verb] = {"create": create.run, "verify": verify.run}


class TerminatedError(BaseException):
    """A signal asks us to end; raised in the main thread, so that every context manager cleans up."""


def run_verb(
    verb: str, *, sysconfdir: str = "/etc", localstatedir: str = "/var", argv: Sequence[str] | None = None
) -> NoReturn:
    """Run one verb with this process's arguments and environment, and exit.

    sysconfdir and localstatedir are the configured directories; argv is without the program's name.
    """
    arguments = sys.argv[1:] if argv is None else argv
    sys.exit(_run(verb, arguments, os.environ, Paths(sysconfdir, localstatedir)))


def _run(verb: str, argv: Sequence[str], environ: Mapping[str, str], paths: Paths) -> int:
    messages = Messages(os_name=OS_NAME, verb=verb)
    messages.attach()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _terminated)
    try:
        request = parse_request(verb, argv, environ)
        messages.set_instance(os_name=request.os_name or OS_NAME, verb=verb, instance=request.instance)
        messages.set_debug(request.debug_level > 0)
        settings = read_settings(paths)
        messages.set_debug(request.debug_level > 0 or settings.image_debug)
        if verb not in VERBS:
            raise RequestError(f"this version of the OS definition creates instances only; it has no {verb}")
        VERBS[verb](request, settings, messages)
    except HelpRequested as request_for_help:
        print(request_for_help)  # noqa: T201 - asked for by a person; no verb runs
        return 0
    except UsageError as error:
        print(error.usage, file=sys.stderr)  # noqa: T201 - the sentence comes last
        messages.failure(error)
        return 2
    except DiskImageError as error:
        messages.failure(error)
        return 1
    except TerminatedError as error:
        messages.failure(error)
        return 1
    except Exception as error:  # a defect of ours must end in one sentence as well
        logging.getLogger(__name__).info("what follows is a defect; please report it", exc_info=error)
        messages.failure(RuntimeError(f"internal error: {type(error).__name__}: {error}; the disk is not complete"))
        return 1
    return 0


def _terminated(number: int, _frame: object) -> NoReturn:
    raise TerminatedError(f"ended by {signal.Signals(number).name}; the disk is not complete")
