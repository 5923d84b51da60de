# SPDX-License-Identifier: MIT
"""The identity of a machine apart from names, addresses and keys: removed or made anew (ADR 0104).

| what | where | treatment |
| --- | --- | --- |
| machine id | /etc/machine-id | emptied with systemd, which fills it; removed without, as D-Bus refuses an empty one |
| D-Bus' machine id | /var/lib/dbus/machine-id | removed unless it is a symlink; made at boot |
| random seeds | systemd, SysV, OpenRC, seedrng | removed; written at shutdown |
| NetworkManager | secret_key, leases | removed; the key is made at its start |
| DHCP clients | leases, DUIDs, dhcpcd's secret, wicked's DUID and IAIDs | removed |
| credential.secret | systemd | removed unless something in /etc/credstore.encrypted needs it |
| iSCSI, NVMe over fabrics | initiator name, host NQN and id | the random part is made anew |
| /etc/hostid | | four random bytes; kept with ZFS, which ties its pools to it |
| network cards | udev's persistent-net rules | emptied: they name the cards of the old machine |
| pollinate, yum, insights-client, popularity-contest, Docker | their ids | removed or made anew |
"""

from __future__ import annotations

import logging
import os
import re
import stat
import uuid

from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.shell_values import shell_values
from pydiskimg.system.edits.span import substituted
from pydiskimg.system.edits.systemd import has_systemd

log = logging.getLogger(__name__)

_MACHINE_ID = "/etc/machine-id"
_DBUS_ID = "/var/lib/dbus/machine-id"
_FIRST_BOOT = b"uninitialized"
# A directory, a pattern of names in it, and a description.
_REMOVED = (
    ("/var/lib/systemd", "random-seed", "a random seed"),
    ("/var/lib/urandom", "random-seed", "a random seed"),
    ("/var/lib/misc", "random-seed", "a random seed"),
    ("/var/lib", "random-seed", "a random seed"),
    ("/var/lib/seedrng", "seed.*", "a random seed"),
    ("/var/lib/NetworkManager", "secret_key", "the key that addresses are made from"),
    ("/var/lib/NetworkManager", "*.lease", "a DHCP lease"),
    ("/var/lib/dhcp", "dhclient*.lease*", "a DHCP lease and id"),
    ("/var/lib/dhcp3", "dhclient*.lease*", "a DHCP lease and id"),
    ("/var/lib/dhclient", "*.lease*", "a DHCP lease and id"),
    ("/var/lib/dhcpcd", "*", "a DHCP lease, id or secret"),
    ("/var/lib/dhcpcd5", "*", "a DHCP lease, id or secret"),
    ("/etc", "dhcpcd.duid", "a DHCP id"),
    ("/etc", "dhcpcd.secret", "the key that addresses are made from"),
    ("/var/lib/wicked", "*.xml", "a DHCP lease or id"),
    ("/var/cache/pollinate", "seeded", "the mark of a machine that is seeded"),
    ("/etc/insights-client", "machine-id", "a machine id"),
    ("/var/lib/yum", "uuid", "a machine id"),
    ("/etc/docker", "key.json", "a machine's key"),
    ("/var/lib/docker", "engine-id", "a machine id"),
)
_CREDENTIALS = "/etc/credstore.encrypted"
_CREDENTIAL_KEY = "/var/lib/systemd/credential.secret"
_HOST_ID = "/etc/hostid"
_ZFS = ("/etc/zfs/zpool.cache", "/usr/sbin/zpool", "/sbin/zpool")
_POPULARITY = "/etc/popularity-contest.conf"
_UDEV_RULES = "/etc/udev/rules.d"
# As udev's generator wrote them: z25_ until Debian 5, then 70-.
_PERSISTENT_NET = ("z*_persistent-net.rules", "70-persistent-net.rules")
# Random parts of names: after iSCSI's last colon, as the distributions make them; a UUID.
_ISCSI = (
    "/etc/iscsi/initiatorname.iscsi",
    re.compile(rb"^InitiatorName=iqn\.[^\s]*:([0-9a-f]{6,32})[ \t\r]*+$", re.MULTILINE),
)
_NVME_NAME = ("/etc/nvme/hostnqn", re.compile(rb"^nqn\.2014-08\.org\.nvmexpress:uuid:([0-9a-fA-F-]{36})\s*+\Z"))
_NVME_ID = ("/etc/nvme/hostid", re.compile(rb"^([0-9a-fA-F-]{36})\s*+\Z"))
# Also part of the identity, but only its owner can make it anew.
_TOLD = (
    "/etc/krb5.keytab",
    "/etc/salt/pki/minion/minion.pem",
    "/etc/pki/consumer/cert.pem",
    "/etc/puppetlabs/puppet/ssl",
    "/var/lib/tailscale/tailscaled.state",
    "/var/lib/zerotier-one/identity.secret",
    "/etc/ssl/private/ssl-cert-snakeoil.key",
    "/var/lib/glusterd/glusterd.info",
)


def make_machine_ids(draft: Draft) -> None:
    """Remove the previous machine's identity from the system in the draft; none of it appears in a log.

    Raises StorageError for unreadable files, GuestError for too many leases.
    """
    _forget_machine_id(draft)
    for directory, pattern, what in _REMOVED:
        _remove_files(draft, directory, pattern, what)
    _forget_credential_key(draft)
    host = str(uuid.uuid4()).encode("ascii")
    _change_part(draft, *_NVME_NAME, host, "a host name of its own for NVMe")
    _change_part(draft, *_NVME_ID, host, "a host id of its own for NVMe")
    _change_part(draft, *_ISCSI, os.urandom(6).hex().encode("ascii"), "an initiator name of its own")
    _change_host_id(draft)
    _change_popularity_id(draft)
    forget_network_cards(draft)
    for path in filter(draft.exists, _TOLD):
        log.warning("%s is the same as in the image, which may be another machine's identity", path)


def forget_network_cards(draft: Draft) -> None:
    """Empty the rules that name the network cards of another machine by their addresses."""
    for pattern in _PERSISTENT_NET:
        for path in draft.files(_UDEV_RULES, pattern):
            draft.change(path, b"", "emptied: it names network cards by their old addresses")


def _forget_machine_id(draft: Draft) -> None:
    """Leave a missing file and "uninitialized" alone: the image's author wants presets to be applied at first boot."""
    is_systemd = has_systemd(draft)
    if is_systemd:
        old = draft.read(_MACHINE_ID)
        if old and old.strip() != _FIRST_BOOT:
            draft.change(_MACHINE_ID, b"", "emptied: the system makes its own when it boots", mode=0o444)
    else:
        _remove(draft, _MACHINE_ID, "a machine id")
    status, machine = draft.stat(_DBUS_ID, follow_symlinks=False), draft.stat(_MACHINE_ID)
    is_same = status is not None and machine is not None and os.path.samestat(status, machine)
    if status is not None and not stat.S_ISLNK(status.st_mode) and not (is_systemd and is_same):
        _remove(draft, _DBUS_ID, "a machine id")


def _remove_files(draft: Draft, directory: str, pattern: str, what: str) -> None:
    if any(character in pattern for character in "*?["):
        for path in draft.files(directory, pattern):
            _remove(draft, path, what)
    else:
        _remove(draft, f"{directory}/{pattern}", what)


def _remove(draft: Draft, path: str, what: str) -> None:
    status = draft.stat(path, follow_symlinks=False)
    if status is None:
        return
    if stat.S_ISDIR(status.st_mode):
        log.warning("%s is a directory and is kept; expected a file: %s", path, what)
    else:
        draft.remove(path, f"removed: {what}")


def _forget_credential_key(draft: Draft) -> None:
    if draft.files(_CREDENTIALS, "*"):
        log.warning("%s is kept as in the image: files in %s need it", _CREDENTIAL_KEY, _CREDENTIALS)
    else:
        _remove(draft, _CREDENTIAL_KEY, "the key of the machine's credentials")


def _change_part(draft: Draft, path: str, pattern: re.Pattern[bytes], new: bytes, what: str) -> None:
    """Replace the group of the pattern in a file that matches it; any other text is the administrator's and stays."""
    if not draft.is_file(path):
        return
    data = draft.read(path) or b""
    found = pattern.search(data)
    if found is not None:
        draft.change(path, data[: found.start(1)] + new + data[found.end(1) :], what)
    elif path == _ISCSI[0] and b"GenerateName=yes" not in data and data.strip():
        log.warning("%s is kept as in the image: no part of it looks random", path)


def _change_host_id(draft: Draft) -> None:
    if not draft.is_file(_HOST_ID):
        return
    if any(map(draft.exists, _ZFS)):
        log.warning("%s is kept as in the image, because ZFS ties its pools to it", _HOST_ID)
    else:
        draft.change(_HOST_ID, os.urandom(4), "a host id of its own")


def _change_popularity_id(draft: Draft) -> None:
    if not draft.is_file(_POPULARITY):
        return
    data = draft.read(_POPULARITY) or b""
    spans = [value.span for value in shell_values(data, ("MY_HOSTID",)) if value.span is not None]
    new = os.urandom(16).hex().encode("ascii")
    draft.change(_POPULARITY, substituted(data, [(span, new) for span in spans if span.text]), "an id of its own")
