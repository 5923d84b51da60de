# SPDX-License-Identifier: MIT
"""/etc/resolv.conf, if it is a plain file: then no program writes it, or only one that accepts other lines."""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence

from ganeti_os.guest.network.writing.nic_plan import HEADER, NicPlan, text_of
from pydiskimg.system.edits.draft import Draft

_PATH = "/etc/resolv.conf"
_SERVER = re.compile(rb"^[ \t]*+nameserver[ \t]", re.MULTILINE)


def write_resolver(draft: Draft, plans: Sequence[NicPlan], *, is_new: bool) -> None:
    """Write the name servers of the plans. In a system that is not new, a file with other ones stays.

    A symlink stays: it leads to the file of systemd-resolved, resolvconf or another program.
    """
    servers = [server for plan in plans for server in plan.name_servers]
    if not servers:
        return
    found = draft.stat(_PATH, follow_symlinks=False)
    if found is not None and not stat.S_ISREG(found.st_mode):
        return
    data = draft.read(_PATH) or b""
    if not (is_new or data.startswith(HEADER) or not _SERVER.search(data)):
        return
    search = [domain for plan in plans for domain in plan.search]
    lines = [f"search {' '.join(search)}"] if search else []
    lines += [f"nameserver {server}" for server in servers]
    draft.change(_PATH, HEADER + text_of(lines), "the name servers")
