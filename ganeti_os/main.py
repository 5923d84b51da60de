# SPDX-License-Identifier: MIT
"""From a call by Ganeti to an exit status: 0 done, 1 failed, 2 wrong usage.

Standard output is for the export stream. Messages go to standard error, and the last line of a failure is the sentence
that the administrator needs, because Ganeti shows the end of the log.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from typing import NoReturn

from ganeti_os.internal_errors import defect
from ganeti_os.log import Messages
from ganeti_os.request import HelpRequested, RequestError, UsageError, apparent_instance, parse_request
from ganeti_os.settings.settings import Paths, read_settings
from ganeti_os.signals import Ending, TerminatedError
from pydiskimg.errors import DiskImageError
from pydiskimg.linux.stdio import begin_process, end_process, keep_standard_descriptors
from pydiskimg.text import without_password

log = logging.getLogger(__name__)

OS_NAME = "image"
STREAMING = {"export": 1, "import": 0}  # and the descriptor of the backup's stream
# How long a verb that received a signal may wait for the program at the other end of the pipe.
PATIENCE_SECONDS = 2.0
# The incomplete object in messages when a signal or a defect ends the verb, also before the first write.
WHAT = {
    "create": "the installation",
    "import": "the disk",
    "export": "the backup",
    "rename": "the renaming",
    "verify": "the check",
}
DOING = {  # the description of a verb, for messages outside of any step
    "create": "installing",
    "export": "exporting",
    "import": "restoring",
    "rename": "renaming",
    "verify": "checking",
}
MODULES = {"import": "import_"}  # a keyword cannot name a module


def run_verb(
    verb: str, *, sysconfdir: str = "/etc", localstatedir: str = "/var", argv: Sequence[str] | None = None
) -> NoReturn:
    """Run one verb with this process's arguments and environment, and exit.

    sysconfdir and localstatedir are the configured directories; argv is without the program's name.
    """
    begin_process()
    closed = keep_standard_descriptors()
    ending = Ending(WHAT[verb])
    ending.install(patience_seconds=PATIENCE_SECONDS if verb in STREAMING else 0.0)
    arguments = sys.argv[1:] if argv is None else argv
    status = _run(verb, arguments, Paths(sysconfdir, localstatedir), ending, closed)
    end_process(status)


def _run(verb: str, argv: Sequence[str], paths: Paths, ending: Ending, closed: set[int]) -> int:
    messages = Messages(
        os_name=OS_NAME, verb=verb, instance=apparent_instance(verb, argv, os.environ), check=ending.check
    )
    messages.attach()
    try:
        _serve(verb, argv, os.environ, paths, messages, closed)
    except HelpRequested as usage:
        return _show(str(usage), messages)
    except UsageError as error:
        with suppress(OSError, AttributeError):  # the log is full or closed
            sys.stderr.write(f"{error.usage}\n")
        messages.failure(error)
        return 2
    except Exception as error:  # noqa: BLE001 - a defect or a broken installation ends in one sentence as well
        messages.failure(_reported(error, ending))
        return 1
    return 0


def _show(usage: str, messages: Messages) -> int:
    """Print the requested text, and return the exit status; no verb runs."""
    try:
        print(usage, flush=True)  # noqa: T201
    except OSError as error:
        messages.failure(OSError(f"the usage cannot be written to standard output: {os.strerror(error.errno or 0)}"))
        return 1
    return 0


def _reported(error: Exception, ending: Ending) -> Exception:
    """Return the error for the last line: an error caused by a signal is reported as that signal's."""
    if ending.number and not isinstance(error, TerminatedError):
        log.info("%s", error)
        return ending.error()
    return error if isinstance(error, DiskImageError | TerminatedError) else defect(error, ending.what)


def _serve(
    verb: str, argv: Sequence[str], environ: Mapping[str, str], paths: Paths, messages: Messages, closed: set[int]
) -> None:
    with messages.step("request"):
        request = parse_request(verb, argv, environ)
        messages.set_instance(os_name=request.os_name or OS_NAME, verb=verb, instance=request.instance)
        messages.set_debug(request.debug_level > 0)
        if STREAMING.get(verb) in closed:
            raise RequestError(f"descriptor {STREAMING[verb]} is closed, and {verb} needs it for the backup")
    with messages.step("settings"):
        settings = read_settings(paths, variant=request.variant, parameters=request.parameters)
        messages.set_debug(request.debug_level > 0 or settings.image_debug)
        log.debug("%s", " ".join(f"{name}={without_password(text)!r}" for name, text in settings.texts().items()))
    with messages.step(DOING[verb]):
        # Imported here: a missing package must also end in a sentence.
        import_module(f"ganeti_os.verbs.{MODULES.get(verb, verb)}").run(request, settings, messages)
