# SPDX-License-Identifier: MIT
"""python -m tests.foreign [qemu|e2fsprogs|libarchive|util-linux ...]: see docs/foreign-suites.md."""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import sys
import time
from pathlib import Path

from tests.foreign.outcomes import (
    EXPECTATIONS,
    NOT_RUN,
    PASSED,
    WORDING,
    Outcome,
    expectations,
    judged,
    read_differences,
    summary,
    table,
)
from tests.foreign.sources import KEPT, source

CACHE = Path(__file__).resolve().parent.parent.parent / ".foreign"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.foreign", description="Run other projects' tests on us.")
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"{', '.join(KEPT)} (default: all)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="only tests whose name matches")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--table", action="store_true", help="print what is known to differ, as the document has it")
    parser.add_argument("-v", "--verbose", action="store_true", help="show each test")
    arguments = parser.parse_args()
    if strange := set(arguments.suites) - set(KEPT):
        parser.error(f"there is no suite {min(strange)}; expected {', '.join(KEPT)}")
    if arguments.table:
        sys.stdout.write(table(read_differences(EXPECTATIONS.read_text())))
        return 0
    results = [run(suite, arguments) for suite in arguments.suites or KEPT]
    return 0 if all(results) else 1


def run(suite: str, arguments: argparse.Namespace) -> bool:
    """Run one suite and print its figures; returns whether everything that differs is listed."""
    started, tree = time.monotonic(), source(suite, CACHE)
    module = importlib.import_module(f"tests.foreign.{suite.replace('-', '_')}")
    taken, outcomes = module.Suite(tree, CACHE), []
    for outcome in taken.outcomes(lambda test: fnmatch.fnmatch(test, arguments.only), arguments.jobs):
        outcomes.append(outcome)
        show(outcome, everything=arguments.verbose)
    figures = judged(outcomes, expectations(suite, EXPECTATIONS.read_text()))
    version = (tree / "VERSION").read_text().strip()
    remark = f"  {taken.remark}\n" if hasattr(taken, "remark") else ""
    sys.stdout.write(f"{summary(suite, figures)}\n{remark}  {version}, {time.monotonic() - started:.0f} s\n")
    sys.stdout.flush()
    return not figures.unexpected


def show(outcome: Outcome, *, everything: bool) -> None:
    if everything or outcome.kind not in (PASSED, WORDING, NOT_RUN):
        sys.stderr.write(f"{outcome.test}: {outcome.kind} {outcome.detail}\n".rstrip() + "\n")


if __name__ == "__main__":
    sys.exit(main())
