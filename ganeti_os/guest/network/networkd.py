# SPDX-License-Identifier: MIT
"""*.network of systemd-networkd with their drop-ins, and *.link of udev: the sections with addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ganeti_os.guest.facts.addresses import DEFAULT_ROUTES, Interface
from ganeti_os.guest.network.files import NetworkFiles
from ganeti_os.guest.syntax.ini import IniValue, ini_values
from pydiskimg.system.edits.span import Span

DIRECTORIES = (
    "/etc/systemd/network",
    "/run/systemd/network",
    "/usr/local/lib/systemd/network",
    "/usr/lib/systemd/network",
    "/lib/systemd/network",
)
_VENDORS = ("/usr/", "/lib/")  # systemd's own files for containers
_VALUES = {
    ("match", "macaddress"): "mac",
    ("match", "permanentmacaddress"): "mac",
    ("network", "address"): "address",
    ("address", "address"): "address",
    ("address", "broadcast"): "broadcast",
    ("network", "gateway"): "gateway",
}


@dataclass(slots=True)
class _Unit:
    """A file with its drop-ins. routes are the values of each section [Route]."""

    interface: Interface
    routes: dict[tuple[str, int], dict[str, Span]] = field(default_factory=dict)

    def read(self, path: str, data: bytes) -> None:
        for value in ini_values(data):
            self._take(path, value)

    def _take(self, path: str, value: IniValue) -> None:
        key, span = (value.section, value.key), value.span
        if key == ("match", "name") and span.text:
            self.interface.name = span.text.decode("latin-1")
        elif value.section == "route":
            self.routes.setdefault((path, value.number), {})[value.key] = span
        elif kind := _VALUES.get(key):
            if not span.text and value.section == "network":  # an empty value resets the earlier ones
                self._forget(kind)
            # Each section [Address] has its own fields.
            self.interface.add(path, kind, span, f"{path}:{value.number}" if value.section == "address" else "")

    def _forget(self, kind: str) -> None:
        unit = self.interface
        if kind == "address":
            unit.addresses = [one for one in unit.addresses if one.group]
            unit.others = [one for one in unit.others if one.group or one.kind == "gateway"]
        else:
            unit.others = [one for one in unit.others if one.kind != kind]

    def finish(self) -> Interface:
        for (path, _), route in self.routes.items():
            if "gateway" in route and ("destination" not in route or route["destination"].text in DEFAULT_ROUTES):
                self.interface.add(path, "gateway", route["gateway"])
        return self.interface


def networkd_interfaces(files: NetworkFiles) -> Iterator[Interface]:
    """Yield each *.network with its drop-ins as one interface; it is named by [Match] Name=, or by the file."""
    for suffix, names_only in ((".network", False), (".link", True), (".netdev", True)):
        units: dict[str, list[str]] = {}
        for path in files.search_path(DIRECTORIES, f"*{suffix}"):
            units[path.rpartition("/")[2]] = [path]
        for name, paths in files.drop_ins(DIRECTORIES, f"*{suffix}").items():
            # netplan makes its files at boot, so that drop-ins may belong to files that are missing here.
            units.setdefault(name, []).extend(paths)
        for name, paths in sorted(units.items()):
            unit = _Unit(Interface(name.removesuffix(suffix), names_only=names_only))
            for path in paths:
                unit.read(path, files.read(path))
            interface = unit.finish()
            is_vendors = all(path.startswith(_VENDORS) for path in paths)
            interface.names_only |= is_vendors and not interface.addresses
            yield interface
