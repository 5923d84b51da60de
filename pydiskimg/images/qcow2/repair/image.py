# SPDX-License-Identifier: MIT
"""repair_qcow2(): free leaked clusters, and correct reference counts and copied flags.

The tables define the contents of the disk and its snapshots; counts and flags follow from them. If a table itself is
damaged, clusters that seem to be free may be those of the damaged entry: such an image is not changed.
"""

from __future__ import annotations

from typing import cast

from pydiskimg.images.qcow2 import layout
from pydiskimg.images.qcow2.check import CheckResult, check_qcow2
from pydiskimg.images.qcow2.header import read_header
from pydiskimg.images.qcow2.repair.leaks import free_leaks
from pydiskimg.images.qcow2.repair.rebuild import rebuild
from pydiskimg.images.qcow2.write.head import change_header
from pydiskimg.protocols import Progress, Source, Store

# A table that moves lowers the count of its old cluster: another reference to that cluster may then need its flag.
_ROUNDS = 3
_NOT_CLOSED = layout.INCOMPATIBLE_DIRTY | layout.INCOMPATIBLE_CORRUPT


class Repair:
    """What repair_qcow2() did: found is the CheckResult before it and left the one after it.

    refusal is a sentence that says why nothing was repaired, where the damage is beyond repair; otherwise it is empty.
    leaks_fixed and corruptions_fixed are counts.

    >>> from pydiskimg import CheckResult, Repair
    >>> Repair(CheckResult(), CheckResult()).corruptions_fixed
    0
    """

    def __init__(self, found: CheckResult, left: CheckResult, refusal: str = "") -> None:
        self.found = found
        self.left = left
        self.refusal = refusal

    @property
    def leaks_fixed(self) -> int:
        """The number of freed leaked clusters."""
        return max(0, self.found.leaks - self.left.leaks)

    @property
    def corruptions_fixed(self) -> int:
        """The number of corrected corruptions."""
        return max(0, self.found.corruptions - self.left.corruptions)


def repair_qcow2(store: Store, *, only_leaks: bool = False, progress: Progress | None = None) -> Repair:
    """Repair the qcow2 image in store, and return what a check found before and after it; durable on return.

    store comes from open_qcow2_store(). Reference counts and copied flags are computed again from the tables of the
    disk and its snapshots, whose contents stay as they are; if such a table is damaged itself, nothing is changed
    (ADR 0137). only_leaks frees leaked clusters, corrects copied flags where nothing else is wrong, and changes nothing
    where reference counts need a rebuild. An image that is in order afterwards loses the marks that it is corrupt or
    was not closed. Autoclear bits of unknown features are cleared in any case. progress is that of the checks. An
    interruption leaves the image as it was, apart from those bits and from leaks that are freed already.

    Raises what check_qcow2() raises, and StorageError for a file that cannot be written.

    >>> from pydiskimg import open_qcow2_store, repair_qcow2
    >>> with open_qcow2_store("disk.qcow2") as store:
    ...     done = repair_qcow2(store)
    >>> done.corruptions_fixed, done.leaks_fixed
    (0, 0)
    """
    file = cast("Source", store)  # a check reads bytes of them
    found = check_qcow2(file, progress=progress)
    left = found
    if refusal := _refusal(found, store.name):
        return Repair(found, found, refusal)
    _forget_unknown_features(store)
    if found.corruptions + found.check_errors and not only_leaks:
        left = _rebuilt(store, found, progress)
    elif found.leaks and not found.corruptions:
        is_done = free_leaks(store, to_one=False)
        left = check_qcow2(file, progress=progress) if is_done else _rebuilt(store, found, progress)
    elif found.corruptions and not found.needs_rebuild and not found.check_errors:
        if found.leaks:
            free_leaks(store, to_one=True)  # a missing flag then costs a copy, and there are errors anyway
            left = check_qcow2(file, progress=progress)
        if left.corruptions == left.wrong_flags:
            left = _rebuilt(store, left, progress)
    marks = read_header(store, tables_inside=False).incompatible_features
    if marks & _NOT_CLOSED and not left.corruptions and not left.check_errors:
        change_header(store, incompatible_features=marks & ~_NOT_CLOSED)
        store.flush()
    return Repair(found, left)


def _forget_unknown_features(store: Store) -> None:
    features = read_header(store, tables_inside=False).autoclear_features
    if features & ~layout.AUTOCLEAR_KNOWN:
        change_header(store, autoclear_features=features & layout.AUTOCLEAR_KNOWN)
        store.flush()


def _rebuilt(store: Store, found: CheckResult, progress: Progress | None) -> CheckResult:
    """Rebuild the image, and return the findings of a check afterwards."""
    left = found
    for _ in range(_ROUNDS):
        rebuild(store, left.image_end_offset)
        left = check_qcow2(cast("Source", store), progress=progress)
        if not left.corruptions:
            break
    return left


def _refusal(found: CheckResult, name: str) -> str:
    """Why an image is not repaired that has errors besides counts and flags, or was not counted completely."""
    beyond = found.corruptions - found.repairable
    if not beyond and not found.uncounted:
        return ""
    what = f"{beyond} of {found.corruptions} errors are" if beyond else "the uncounted part is"
    return (
        f"{name}: {what} beyond repair: a table is damaged, and freeing what it named could lose data; nothing was "
        "changed: copy what can be read with convert, or use a backup"
    )
