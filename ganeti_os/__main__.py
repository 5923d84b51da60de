# SPDX-License-Identifier: MIT
"""python -m ganeti_os VERB ARGS: a verb by hand, as the installed executables run it."""

from __future__ import annotations

import argparse
import sys

from ganeti_os.main import run_verb
from ganeti_os.request import VERBS


def main() -> None:
    """Remove VERB from the command line; the rest is the verb's own."""
    parser = argparse.ArgumentParser(
        prog="python -m ganeti_os", description="Run a verb of the OS definition as Ganeti runs it."
    )
    parser.add_argument("--sysconfdir", default="/etc", help="where default/ganeti-instance-image is (default: /etc)")
    parser.add_argument("--localstatedir", default="/var", help="where cache/ is (default: /var)")
    parser.add_argument("verb", choices=VERBS, metavar="VERB", help=", ".join(VERBS))
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGS", help="the verb's arguments")
    arguments = parser.parse_args(sys.argv[1:])
    run_verb(
        arguments.verb,
        sysconfdir=arguments.sysconfdir,
        localstatedir=arguments.localstatedir,
        argv=arguments.arguments,
    )


main()
