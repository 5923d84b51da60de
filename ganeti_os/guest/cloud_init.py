# SPDX-License-Identifier: MIT
"""cloud-init in a guest: whether it runs, what it reads, and its seed, which describes the instance (ADR 0106).

/etc/cloud/cloud.cfg, cloud.cfg.d/*.cfg     the image's configuration
/var/lib/cloud/seed/nocloud/                meta-data, user-data, network-config: the seed
/var/lib/cloud/instance/obj.pkl             what cloud-init last read, believed as long as the seed's
                                            instance-id is the same
/var/lib/cloud/data/instance-id             of the last boot; without it the network is configured anew, while
                                            instances/ID/sem still records one-time actions
"""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from collections.abc import Collection, Iterator

from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.network.cloud_config import is_known, network_config
from ganeti_os.guest.network.writing.netplan import remove_foreign_netplan
from ganeti_os.guest.network.writing.nic_plan import HEADER
from ganeti_os.settings.root_owned import distrust
from ganeti_os.settings.settings import Settings
from ganeti_os.settings.shellfile import SettingsError
from pydiskimg.errors import storage_error
from pydiskimg.files.tree import Tree
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.renaming import short
from pydiskimg.system.edits.systemd import UNIT_DIRECTORIES, is_masked
from pydiskimg.system.edits.text import with_lines
from pydiskimg.text import printable

log = logging.getLogger(__name__)

USER_DATA_LIMIT = 512 << 10  # bytes; a CIDATA volume has about twice that
NO_USER_DATA = b"#cloud-config\n{}\n"
META_DATA, USER_DATA, VENDOR_DATA, NETWORK_CONFIG = "meta-data", "user-data", "vendor-data", "network-config"

_CONFIG = "/etc/cloud/cloud.cfg"
_CONFIG_DIRECTORY = "/etc/cloud/cloud.cfg.d"
_OWN_ENDING = "_ganeti.cfg"
_OWN_COMMENT = b"# Written by the Ganeti OS definition image for a new instance.\n"
_NO_NETWORK = b"network: {config: disabled}"
_STATE = "/var/lib/cloud"
_SEEDS = (f"{_STATE}/seed/nocloud", f"{_STATE}/seed/nocloud-net")  # the first complete one is used
_ABOVE_SEEDS = ("/var", "/var/lib", _STATE, f"{_STATE}/seed")  # the last one that is a mount point has them
_PROGRAM = "/usr/bin/cloud-init"
_UNITS = ("cloud-init.target", "cloud-init.service", "cloud-init-local.service", "cloud-init-main.service")
_RUN_LEVELS = ("sysinit", "boot", "default")
_KERNEL_ARGUMENTS = (
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/extlinux.conf",
)
_BOOT_ENTRIES = "/boot/loader/entries"

_DISABLED = re.compile(rb"(?<![^\s\"'=])cloud-init=disabled(?![^\s\"'])")
_POLICY = re.compile(rb"^[ \t]*+policy:[ \t]*+disabled", re.MULTILINE)
_LIST = re.compile(
    rb"^datasource_list:[ \t]*+(?:\[([^][]*+)\]|(?:#[^\n]*+)?\n((?:[ \t]*+(?:-[^\n]*+|#[^\n]*+)?(?:\n|\Z))*+))",
    re.MULTILINE,
)
_RENDERERS = re.compile(rb"^[ \t]++renderers:[ \t]*+\[([^][]*+)\]", re.MULTILINE)
_NETWORK = re.compile(rb"^network:", re.MULTILINE)
_WORD = re.compile(rb"[A-Za-z0-9_-]++")
_COMMENT = re.compile(rb"#[^\n]*+")
_MOUNT_POINT = re.compile(rb"^[ \t]*+[^#\s]\S*+[ \t]++(/\S*+)", re.MULTILINE)
_NAME_LINE = re.compile(rb"^(hostname|fqdn):[ \t]++([\"']?)([A-Za-z0-9._-]++)\2(?=[ \t]*+\r?$|[ \t]++#)", re.MULTILINE)
_LOCAL_NAME = re.compile(rb"^([\"']?)local-hostname\1:[^\n]*+$", re.MULTILINE)
_DATASOURCE = re.compile(rb"^(DataSource\w++)[^\n\[]*+(?:\[seed=([^\]\n]*+)\])?")
_STARTS = (
    *(b"#cloud-config", b"#!", b"#include", b"#cloud-boothook", b"#part-handler", b"## template:", b"#upstart-job"),
    *(b"Content-Type:", b"MIME-Version:", b"From ", b"\x1f\x8b"),
)

# The requirements of each renderer of cloud-init's, in its own order if the image does not choose one.
_NEEDED = {
    "eni": ("/sbin/ifup", "/sbin/ifquery", "/etc/network/interfaces"),
    "sysconfig": ("/etc/sysconfig/network-scripts/network-functions",),
    "netplan": ("/usr/sbin/netplan",),
    "network-manager": ("/usr/bin/nmcli",),
}
# eni needs the program route; networkd's renderer loses on-link and, before 23.1, the default route of IPv6.
_FAITHFUL = ("sysconfig", "netplan", "network-manager")


def cloud_init_is_active(draft: Draft) -> bool:
    """True if the system has cloud-init and nothing keeps it from running at boot."""
    return _is_installed(draft) and _disabled_by(draft) is None


def cloud_init_configures_network(draft: Draft, facts: Facts) -> bool:
    """True if cloud-init makes the network's files from the seed, so that configure_network() has nothing to do.

    It does not do so if its own configuration has a network, and is kept from it in a new system if its renderer loses
    information of the seed.
    """
    if not cloud_init_is_active(draft) or any(_NETWORK.search(data) for _, data in _configuration(draft)):
        return False
    return _renders_faithfully(draft) if facts.is_new else _seed(draft) is not None


def leave_network_without_seed(draft: Draft, facts: Facts) -> None:
    """Keep an active cloud-init from the network of a new system that gets no seed with the instance's network.

    It would request DHCP, or not run at all; the network is then the system's own, as without cloud-init.
    """
    seed = _seed(draft) or _SEEDS[0]
    seeded = (draft.read(f"{seed}/{NETWORK_CONFIG}") or b"").startswith(HEADER)
    if facts.nics and not seeded and cloud_init_configures_network(draft, facts):
        own = _own_config(_CONFIG)
        draft.change(own, with_lines(draft.read(own) or _OWN_COMMENT, _NO_NETWORK), "for cloud-init")


def needs_seed_volume(tree: Tree, mounted: Collection[str] = ()) -> bool:
    """True if the system will not see a seed in the tree, because another file system will cover its directory.

    mounted are the directories of the tree at which the system's own file systems are mounted.
    """
    draft = Draft(tree)
    found = _MOUNT_POINT.findall(draft.read("/etc/fstab") or b"")
    points = {point.rstrip(b"/").decode("utf-8", "surrogateescape") for point in found}
    over = [above for above in _ABOVE_SEEDS if above in points]
    return bool(over) and over[-1] not in mounted and cloud_init_is_active(draft)


def configure_cloud_init(draft: Draft, facts: Facts, settings: Settings) -> None:
    """Let an active cloud-init configure the instance: a new one by a new seed, another one under its old identity.

    Raises StorageError or SettingsError when the file in CLOUD_USER_DATA cannot be read.
    """
    if not _is_installed(draft):
        return
    reason = _disabled_by(draft)
    if reason is not None:
        log.info("cloud-init is installed but disabled by %s; it is not changed", reason)
    elif facts.is_new:
        _make_seed(draft, facts, settings)
    else:
        _renew_seed(draft, facts)


def check_user_data(settings: Settings) -> None:
    """Refuse the file in CLOUD_USER_DATA as read_user_data() does, before the first write; warn if it is odd."""
    data = read_user_data(settings)
    if data is not None and not data.startswith(_STARTS):
        text = "cloud-init ignores user-data that begins like this; expected #cloud-config or #!"
        log.warning("%s: %s", settings.cloud_user_data, text)


def read_user_data(settings: Settings) -> bytes | None:
    """Return the contents of the file in CLOUD_USER_DATA; None if it names none.

    Raises SettingsError for a file that is too large, special, or may be of others than root, and StorageError for one
    that cannot be read.
    """
    path = settings.cloud_user_data
    if not path:
        return None
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # opening a FIFO must not block
        with open(fd, "rb") as file:
            status = os.fstat(fd)
            data = file.read(USER_DATA_LIMIT + 1) if stat.S_ISREG(status.st_mode) else None
    except OSError as error:
        raise storage_error(error, path, "CLOUD_USER_DATA cannot be read") from error
    if data is None:
        raise SettingsError(f"{path}: CLOUD_USER_DATA is not a regular file; expected user-data for cloud-init")
    problem = distrust(path, status, "runs as root in instances")
    if problem:
        raise SettingsError(problem)
    if len(data) > USER_DATA_LIMIT:
        raise SettingsError(
            f"{path}: CLOUD_USER_DATA is larger than {USER_DATA_LIMIT} bytes; make it #include the rest"
        )
    return data


def meta_data(facts: Facts) -> bytes:
    """Return the meta-data of a new instance."""
    lines = (f"instance-id: {json.dumps(_instance_id(facts))}", f"local-hostname: {json.dumps(facts.name)}")
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def renamed_meta_data(data: bytes, name: str) -> bytes:
    """Return meta-data, YAML or JSON, with this name; all else stays, in particular the instance-id."""
    if data.lstrip().startswith(b"{"):
        try:
            return json.dumps({**json.loads(data), "local-hostname": name}).encode("ascii") + b"\n"
        except (ValueError, RecursionError):
            return data  # cloud-init cannot read it either
    line = f"local-hostname: {json.dumps(name)}".encode("ascii")
    if _LOCAL_NAME.search(data):
        return _LOCAL_NAME.sub(lambda _: line, data)
    return with_lines(data, line)


def renamed_user_data(data: bytes, name: str) -> bytes:
    """Return user-data with this name in the lines hostname and fqdn of a #cloud-config, each in its present form."""
    return _renamed_lines(data, name) if data.startswith(b"#cloud-config") else data


def _renamed_lines(data: bytes, name: str) -> bytes:
    def renamed(match: re.Match[bytes]) -> bytes:
        full = match.group(1) == b"fqdn" or b"." in match.group(3)
        return match.group(1) + b": " + (name if full else short(name)).encode("ascii")

    return _NAME_LINE.sub(renamed, data)


def renewed_seed(files: dict[str, bytes], facts: Facts) -> dict[str, bytes]:
    """Return a seed's files for an instance that is renamed or imported: its name, its network, its identity if new."""
    renewed = dict(files)
    for name in (USER_DATA, VENDOR_DATA):
        if name in files:
            renewed[name] = renamed_user_data(files[name], facts.name)
    old = files.get(META_DATA, b"")
    renewed[META_DATA] = meta_data(facts) if facts.is_new else renamed_meta_data(old, facts.name)
    ours = files.get(NETWORK_CONFIG, b"").startswith(HEADER)
    if facts.nics and (ours or any(map(is_known, facts.nics))):
        renewed[NETWORK_CONFIG] = network_config(facts.nics)
    return renewed


def _instance_id(facts: Facts) -> str:
    return "-".join(filter(None, (facts.uuid, facts.name)))


def _is_installed(draft: Draft) -> bool:
    # The configuration stays when Debian's package is removed; /usr may be a file system of its own.
    return draft.is_file(_CONFIG) and (draft.exists(_PROGRAM) or not draft.exists("/usr/bin"))


def _renders_faithfully(draft: Draft) -> bool:
    order: list[str] = list(_NEEDED)
    for _, data in _configuration(draft):
        for match in _RENDERERS.finditer(data):
            order = [word.decode("ascii") for word in _WORD.findall(match.group(1))]
    renderer = next((name for name in order if name in _NEEDED and all(map(draft.exists, _NEEDED[name]))), None)
    return renderer in _FAITHFUL or (renderer is None and draft.exists("/etc/sysconfig/network"))


def _disabled_by(draft: Draft) -> str | None:
    """Return what keeps cloud-init from running, or None."""
    if draft.exists("/etc/cloud/cloud-init.disabled"):
        return "/etc/cloud/cloud-init.disabled"
    if _POLICY.search(draft.read("/etc/cloud/ds-identify.cfg") or b""):
        return "/etc/cloud/ds-identify.cfg"
    for unit in _UNITS:
        if is_masked(draft, unit):
            return f"{UNIT_DIRECTORIES[0]}/{unit}, which masks it"
    for path in (*_KERNEL_ARGUMENTS, *draft.files(_BOOT_ENTRIES, "*.conf")):
        if draft.is_file(path) and _DISABLED.search(draft.read(path) or b""):
            return f"the kernel's arguments in {path}"
    levels = [f"/etc/runlevels/{level}" for level in _RUN_LEVELS]
    if any(map(draft.exists, levels)) and not any(draft.exists(f"{level}/cloud-init") for level in levels):
        return "/etc/runlevels, which does not name it"
    return None


def _configuration(draft: Draft) -> Iterator[tuple[str, bytes]]:
    """Yield the files of the configuration; a later one has precedence over an earlier one and comes first."""
    for path in [_CONFIG, *draft.files(_CONFIG_DIRECTORY, "*.cfg")]:
        yield path, draft.read(path) or b""


def _make_seed(draft: Draft, facts: Facts, settings: Settings) -> None:
    """Write the seed of a new instance, and remove what cloud-init knew of another one."""
    seed = _seed(draft) or _SEEDS[0]
    own = read_user_data(settings)
    _forget_instance(draft, facts)
    old = draft.read(f"{seed}/{USER_DATA}") or NO_USER_DATA
    if own is not None:  # it may contain passwords, and an old file would keep a mode that lets all users read it
        draft.remove(f"{seed}/{USER_DATA}", "of the image")
    draft.change(f"{seed}/{USER_DATA}", own if own is not None else old, "for cloud-init", mode=0o600)
    if facts.nics:
        draft.change(f"{seed}/{NETWORK_CONFIG}", network_config(facts.nics), "for cloud-init", mode=0o600)
    draft.change(f"{seed}/{META_DATA}", meta_data(facts), f"cloud-init knows the instance as {facts.name}")
    _admit_seed(draft, facts)
    if facts.nics and cloud_init_configures_network(draft, facts):
        # netplan makes the boot wait for the interfaces that the image's patterns found, by their previous names.
        remove_foreign_netplan(draft)


def _renew_seed(draft: Draft, facts: Facts) -> None:
    """Update the seed under its instance-id; a system that cloud-init never configured gets none.

    A seed for a cloud-init that never ran would give the system new keys at the next boot.
    """
    _renew_configuration(draft, facts)
    seed = _seed(draft)
    _tell_of_others(draft, seed)
    if seed is None:
        return
    names = (META_DATA, USER_DATA, VENDOR_DATA, NETWORK_CONFIG)
    old = {name: data for name in names if (data := draft.read(f"{seed}/{name}")) is not None}
    new = renewed_seed(old, facts)
    # The records of cloud-init are removed first: after an interruption the old seed is read again.
    draft.remove(f"{_STATE}/instance/obj.pkl", "cloud-init reads its seed again")
    draft.remove(f"{_STATE}/data/previous-hostname", "cloud-init sets the name again")
    if new.get(NETWORK_CONFIG) != old.get(NETWORK_CONFIG):
        draft.remove(f"{_STATE}/data/instance-id", "cloud-init configures the network again")
    for name, data in new.items():
        draft.change(f"{seed}/{name}", data, f"{facts.name} for cloud-init", mode=0o600)


def _renew_configuration(draft: Draft, facts: Facts) -> None:
    """Change the name in the image's own configuration, if it has one: it precedes the seed's."""
    for path, data in list(_configuration(draft)):
        new = _renamed_lines(data, facts.name)
        if new != data:
            draft.change(path, new, "the name that cloud-init sets")


def _seed(draft: Draft) -> str | None:
    """Return the directory of the seed that cloud-init reads; None without a complete one."""
    files = (META_DATA, USER_DATA)
    return next((path for path in _SEEDS if all(draft.is_file(f"{path}/{name}") for name in files)), None)


def _tell_of_others(draft: Draft, seed: str | None) -> None:
    """Warn where cloud-init takes the name from if it is not from a seed that was found here."""
    found = _DATASOURCE.match(draft.read(f"{_STATE}/instance/datasource") or b"")
    if found is None:
        return
    source, seeds = (
        found.group(1).decode("ascii"),
        printable(found.group(2) or b"", limit=200),
    )
    if source not in ("DataSourceNoCloud", "DataSourceNoCloudNet"):
        if source != "DataSourceNone":
            log.warning("cloud-init in the guest takes its name from %s and may set the old one at boot", source)
    elif seed is None or "/dev/" in seeds:
        log.info("cloud-init in the guest takes its name from the seed on %s first", seeds)


def _forget_instance(draft: Draft, facts: Facts) -> None:
    """Remove the records that tell cloud-init that it has configured this system before."""
    what = "removed: it is about another instance"
    draft.remove(f"{_STATE}/instance", what)
    for directory in (f"{_STATE}/data", f"{_STATE}/sem", f"{_STATE}/instances/{_instance_id(facts)}/sem"):
        for path in draft.files(directory, "*"):
            draft.remove(path, what)


def _admit_seed(draft: Draft, facts: Facts) -> None:
    """Make the image's configuration read the seed, and leave the network to other programs if those do it better."""
    lines = []
    configured, sources = _datasource_list(draft)
    if sources and b"NoCloud" not in sources:
        log.info("%s: does not let cloud-init read a NoCloud seed; %s lets it", configured, _own_config(configured))
        lines.append(b"datasource_list: [ NoCloud, None ]")
    if not cloud_init_configures_network(draft, facts):
        lines.append(_NO_NETWORK)
    if lines:
        draft.change(_own_config(configured), with_lines(_OWN_COMMENT, *lines), "for cloud-init")


def _datasource_list(draft: Draft) -> tuple[str, list[bytes]]:
    """Return the image's last file with a list of datasources, and the names in it; none without a list."""
    configured, sources = _CONFIG, []
    for path, data in _configuration(draft):
        for match in () if path.endswith(_OWN_ENDING) else _LIST.finditer(data):
            configured, sources = path, _WORD.findall(_COMMENT.sub(b"", match.group(1) or match.group(2) or b""))
    return configured, sources


def _own_config(other: str) -> str:
    """Return the path of a configuration file that is read after the other."""
    own = f"{_CONFIG_DIRECTORY}/99{_OWN_ENDING}"
    return own if other < own else other.removesuffix(".cfg") + _OWN_ENDING
