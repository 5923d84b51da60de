# SPDX-License-Identifier: MIT
"""pydiskimg check on a raw disk: the damaged structures of its file systems."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from pydiskimg.cli.output import show, tell
from pydiskimg.cli.progress import progress
from pydiskimg.protocols import ImageBytes
from pydiskimg.volumes.check import CheckedVolume, check_volumes

CONSISTENT, NOT_COMPLETED, CORRUPT, LEAKS, NO_CHECKS = 0, 1, 2, 3, 63


def run_check_volumes(file: ImageBytes, arguments: Any) -> int:
    """Check the volumes of a raw disk, print the findings, and return the exit status."""
    unclear: list[str] = []
    with progress(os.path.basename(file.name), shown=arguments.progress) as callback:
        checked = list(check_volumes(file, unclear, progress=callback))
    if all(one.report is None for one in checked) and not unclear:
        found = ", ".join(str(one.volume) for one in checked)
        tell(f"{file.name}: is a raw image without a file system to check; found: {found}")
        return NO_CHECKS
    if not arguments.quiet:
        for text in (*unclear, *_sentences(file, checked)):
            tell(text)
        show(_facts(file.name, checked, len(unclear)), _lines(checked), arguments.output)
    return _status(checked, is_unclear=bool(unclear))


def _sentences(file: ImageBytes, checked: list[CheckedVolume]) -> Iterator[str]:
    for one in checked:
        where = f"{file.name}, {one.volume.location}"
        if one.report is not None:
            yield from (f"{where}: {text}" for _, text in one.report.details)
            yield from (f"{where}: not checked: {text}" for text in one.report.unchecked)


def _status(checked: list[CheckedVolume], *, is_unclear: bool) -> int:
    reports = [one.report for one in checked if one.report is not None]
    if is_unclear or any(report.unchecked for report in reports):
        return NOT_COMPLETED
    if any(report.errors for report in reports):
        return CORRUPT
    return LEAKS if any(report.leaks for report in reports) else CONSISTENT


def _facts(path: str, checked: list[CheckedVolume], unclear: int) -> dict[str, object]:
    reports = [one.report for one in checked if one.report is not None]
    return {
        "filename": path,
        "format": "raw",
        "check-errors": unclear + sum(len(report.unchecked) for report in reports),
        "corruptions": sum(report.errors for report in reports),
        "leaks": sum(report.leaks for report in reports),
        "volumes": [_volume_facts(one) for one in checked],
    }


def _volume_facts(one: CheckedVolume) -> dict[str, object]:
    content, report = one.volume.content, one.report
    facts: dict[str, object] = {
        "partition": one.volume.partition.number,
        "type": content.type if content else None,
        "checked": report is not None and not report.unchecked,
    }
    if report is not None:
        facts |= {
            "replayed-blocks": report.replayed_blocks,
            "findings": {str(kind): count for kind, count in report.counts.items()},
            "details": [{"kind": str(kind), "text": text} for kind, text in report.details],
            "notes": [*report.unchecked, *report.notes],
        }
    return facts


def _lines(checked: list[CheckedVolume]) -> Iterator[str]:
    for one in checked:
        report = one.report
        if report is None:
            yield f"{one.volume}: not checked"
            continue
        for text in report.notes:
            yield f"{one.volume}: {text}"
        if report.is_clean:
            yield f"{one.volume}: no errors were found."
        if report.errors:
            kinds = ", ".join(f"{count} {kind}" for kind, count in report.counts.items())
            yield f"{one.volume}: {report.errors} errors were found ({kinds}); e2fsck -f repairs them"
        elif report.leaks:
            yield f"{one.volume}: {report.leaks} clusters are leaked: space is wasted, and no data is harmed."
        if report.unchecked:
            yield f"{one.volume}: not all of it was checked"
