# SPDX-License-Identifier: MIT
"""A final search: where the old instance's addresses remain in the guest, by file and line."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator

from ganeti_os.guest.facts.tokens import address_tokens, comments, mac_tokens
from ganeti_os.guest.network.change_addresses import Moved
from ganeti_os.guest.network.files import NetworkFiles
from pydiskimg.system.edits.draft import Draft

log = logging.getLogger(__name__)

# In addition to the network's own files: where administrators, installers and boot loaders write addresses.
_PLACES = (
    ("/etc", "hosts"),
    ("/etc", "resolv.conf"),
    ("/etc", "issue"),
    ("/etc", "motd"),
    ("/etc", "hosts.allow"),
    ("/etc", "hosts.deny"),
    ("/etc", "exports"),
    ("/etc", "rc.local"),
    ("/etc", "nftables.conf"),
    ("/etc/rc.d", "rc.local"),
    ("/etc/local.d", "*.start"),
    ("/etc/ssh", "sshd_config"),
    ("/etc/ssh/sshd_config.d", "*.conf"),
    ("/etc/network/if-up.d", "*"),
    ("/etc/network/if-pre-up.d", "*"),
    ("/etc/network/if-down.d", "*"),
    ("/etc/network/if-post-down.d", "*"),
    ("/etc/NetworkManager/conf.d", "*.conf"),
    ("/etc/NetworkManager/dispatcher.d", "*"),
    ("/etc/networkd-dispatcher/routable.d", "*"),
    ("/etc/iptables", "*"),
    ("/etc/nftables", "*"),
    ("/etc/sysconfig", "iptables"),
    ("/etc/sysconfig", "ip6tables"),
    ("/etc/sysconfig", "nftables.conf"),
    ("/etc/sysconfig/network/scripts", "*"),
    ("/etc/dhcp", "dhclient*.conf"),
    ("/etc/default", "grub"),
    ("/etc/default/grub.d", "*.cfg"),
    ("/etc/kernel", "cmdline"),
    ("/etc/cmdline.d", "*.conf"),
    ("/etc/initramfs-tools", "initramfs.conf"),
    ("/etc/initramfs-tools/conf.d", "*"),
    ("/boot/grub", "grub.cfg"),
    ("/boot/grub2", "grub.cfg"),
    ("/boot/loader/entries", "*.conf"),
    ("/etc/cloud", "cloud.cfg"),
    ("/etc/cloud/cloud.cfg.d", "*.cfg"),
    ("/var/lib/cloud/seed/nocloud", "*"),
    ("/var/lib/cloud/seed/nocloud-net", "*"),
    ("/etc/postfix", "main.cf"),
    ("/etc/chrony", "chrony.conf"),
    ("/etc", "chrony.conf"),
    ("/etc", "ntp.conf"),
)
_TOLD = 20  # warnings, and comments; the rest is counted


def tell_of_old_addresses(draft: Draft, moved: Moved) -> None:
    """Log each location where the guest still has an address that its instance no longer has.

    Addresses in comments are logged as information only. To be called after all changes of the draft.
    """
    if not moved.old_addresses and not moved.old_macs:
        return
    files = NetworkFiles(draft, quiet=True)
    told = remarks = 0
    for path in dict.fromkeys([*moved.searched, *_paths(files)]):
        for location, what, is_comment in _left(files, path, moved):
            if is_comment:
                remarks += 1
                if remarks <= _TOLD:
                    log.info("%s: a comment names %s, which the instance has no longer", location, what)
                continue
            told += 1
            if told <= _TOLD:
                log.warning(
                    "%s: %s remains here, which the instance has no longer; change it inside the guest", location, what
                )
    if remarks > _TOLD:
        log.info("%d more comments in the guest have such an address", remarks - _TOLD)
    if told > _TOLD:
        log.warning("%d more locations in the guest have an address that the instance has no longer", told - _TOLD)


def _paths(files: NetworkFiles) -> Iterator[str]:
    for directory, pattern in _PLACES:
        yield from files.files(directory, pattern)


def _left(files: NetworkFiles, path: str, moved: Moved) -> Iterable[tuple[str, str, bool]]:
    """Yield FILE:LINE, the address, and whether it is in a comment."""
    data = files.read(path)
    spans = [token.span for token in address_tokens(data, moved.old_addresses)]
    spans += [span for span, _ in mac_tokens(data, moved.old_macs)]
    if not spans:
        return
    remarks = comments(data)
    line, before = 1, 0
    for span in sorted(spans):
        line, before = line + data.count(b"\n", before, span.start), span.start
        yield f"{path}:{line}", span.text.decode("ascii"), span.start in remarks
