# SPDX-License-Identifier: MIT
"""The findings of a check: exact counts, and a sentence for each of the first ones."""

from __future__ import annotations

MAX_DETAILS = 100


class CheckResult:
    """The outcome of check_qcow2(); the names are those of `qemu-img check --output=json`.

    corruptions harm data or will do so when the image is written; leaks only waste space; check_errors counts what
    could not be checked. image_end_offset is the end of the last cluster in use, in bytes. total_clusters counts the
    clusters of the virtual disk, allocated_clusters those of them that are stored, compressed_clusters and
    fragmented_clusters (not directly after the one before) those among these. details has a sentence for each of the
    first findings.

    repairable counts the corruptions in what can be computed from the rest, such as reference counts; uncounted the
    check_errors that are not; wrong_flags the corruptions that are copied flags which contradict reference counts.
    needs_rebuild is True where reference counts cannot be repaired one by one.

    >>> from pydiskimg import CheckResult
    >>> CheckResult(total_clusters=16).corruptions
    0
    """

    def __init__(self, *, total_clusters: int = 0) -> None:
        self.total_clusters = total_clusters
        self.allocated_clusters = 0
        self.compressed_clusters = 0
        self.fragmented_clusters = 0
        self.image_end_offset = 0
        self.corruptions = 0
        self.leaks = 0
        self.check_errors = 0
        self.repairable = 0
        self.uncounted = 0
        self.wrong_flags = 0
        self.needs_rebuild = False
        self.details: list[str] = []

    @property
    def is_clean(self) -> bool:
        """True if all was checked and no error was found."""
        return not (self.corruptions or self.leaks or self.check_errors)

    def add_corruption(self, text: str, count: int = 1, *, is_repairable: bool = False) -> None:
        """Count corruptions that one sentence describes; text is not used once there are enough sentences."""
        self.corruptions += count
        if is_repairable:
            self.repairable += count
        if len(self.details) < MAX_DETAILS:
            self.details.append(text)

    def add_wrong_flag(self, text: str, count: int = 1) -> None:
        """Count a copied flag that contradicts the reference count, as often as it occurs."""
        self.wrong_flags += count
        self.add_corruption(text, count, is_repairable=True)

    def add_leak(self, text: str) -> None:
        """Count a cluster with a reference count higher than its references."""
        self.leaks += 1
        self._add_detail(text)

    def add_check_error(self, text: str, count: int = 1, *, is_repairable: bool = False) -> None:
        """Count a part that could not be checked."""
        self.check_errors += count
        self.uncounted += count * (not is_repairable)
        self._add_detail(text)

    @property
    def wants_details(self) -> bool:
        """False once there are enough sentences: a loop may then only count."""
        return len(self.details) < MAX_DETAILS

    def _add_detail(self, text: str) -> None:
        if self.wants_details:
            self.details.append(text)
