# SPDX-License-Identifier: MIT
"""The identity of a system that is another machine than the one its files come from: ids and ssh host keys.

It is called when an instance is created or reinstalled, and by an import with IMPORT_IDENTITY=new.
"""

from __future__ import annotations

from ganeti_os.guest.draft import Draft
from ganeti_os.guest.facts import Facts
from ganeti_os.guest.machine_ids import make_machine_ids
from ganeti_os.guest.renaming import short
from ganeti_os.guest.ssh.host_keys import make_host_keys
from ganeti_os.guest.ssh.key_pairs import KeyMaker


def make_new_identity(draft: Draft, facts: Facts, keys: KeyMaker) -> None:
    """Give a new instance's system an identity of its own; no key or id goes into the log.

    Raises StorageError for files that cannot be read.
    """
    make_machine_ids(draft)
    make_host_keys(draft, f"root@{short(facts.name)}", keys)
