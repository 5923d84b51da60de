# SPDX-License-Identifier: MIT
"""Every path that the identity and boot steps read or write in a guest, each made hostile: the steps end, or say why.

The paths are those that a Tree records while the steps run on the systems of tests/fixtures/network_guests.py, so that
a path which is added later is tried, too. Nothing outside of the guest is touched or made.
"""

from __future__ import annotations

import fcntl
import os
import posixpath
import re
import shutil
import stat
import struct
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from ganeti_os.guest.facts.instance import Facts
from ganeti_os.guest.facts.nics import NewAddress, NicNetwork
from ganeti_os.guest.instance import make_instance
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.settings.settings import Layer, Settings
from pydiskimg.boot import copy_modules, grub_home, read_grub
from pydiskimg.errors import DiskImageError
from pydiskimg.files.mounted_tree import MountedTree
from pydiskimg.system import fstab
from pydiskimg.system.boot.config import configure_boot
from pydiskimg.system.boot.volumes import BootVolumes
from tests.fixtures import network_guests
from tests.fixtures.grub_files import write_grub
from tests.fixtures.limits import peak_memory, reset_peak_memory
from tests.fixtures.mounted_ext4 import mounted_ext4

pytestmark = pytest.mark.root
MIB = 1 << 20
SECONDS = 3.0  # of the processor, for all steps of one guest, whatever it does; an ordinary one takes 0.05
HANG_SECONDS = 60.0
NIC = NicNetwork(
    0, "aa:00:00:11:22:33", (NewAddress(ip_address("192.0.2.10"), ip_network("192.0.2.0/24"), ip_address("192.0.2.1")),)
)
UUID = "01234567-89ab-cdef-0123-456789abcdef"
NEW = Facts(name="inst1.example.org", old_name=None, uuid=UUID, is_new=True, nics=(NIC,), serial_console=True)
RENAMED = Facts(name="inst2.example.net", old_name="inst1.example.org", uuid=UUID, is_new=False, nics=(NIC,))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me@example.org"
HASH = "$6$salt$" + "h" * 86
SETTINGS = Settings.from_layers(
    [Layer("test", {"ROOT_PASSWORD_HASH": HASH, "AUTHORIZED_KEYS": KEY, "KERNEL_ARGS": "quiet"})]
)
BASE: dict[str, str | bytes] = {
    "/etc/hostname": "inst0\n",
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 inst0.example.org inst0\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/etc/shadow": "root:*:1:0:99999:7:::\n",
    "/etc/machine-id": "0123456789abcdef0123456789abcdef\n",
    "/etc/fstab": "UUID=1 / ext4 defaults 0 1\n",
    "/etc/os-release": 'PRETTY_NAME="Test"\n',
    "/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\nHostKey /etc/ssh/ssh_host_rsa_key\n",
    "/etc/ssh/sshd_config.d/a.conf": "AuthorizedKeysFile .ssh/authorized_keys\n",
    "/etc/ssh/ssh_host_rsa_key": "old",
    "/etc/ssh/ssh_host_rsa_key.pub": "ssh-rsa AAAA\n",
    "/usr/sbin/sshd": "",
    "/root/.profile": "",
    "/var/lib/dhcp/dhclient.leases": "lease {}\n",
    "/var/lib/systemd/random-seed": b"seed",
}
SELINUX: dict[str, str | bytes] = {
    "/etc/selinux/config": "SELINUX=enforcing\nSELINUXTYPE=targeted\n",
    "/etc/selinux/targeted/contexts/files/file_contexts": "/.* system_u:object_r:default_t:s0\n"
    "/etc(/.*)? system_u:object_r:etc_t:s0\n",
    "/etc/selinux/targeted/contexts/files/file_contexts.subs_dist": "/run /var/run\n",
}
CLOUD_INIT: dict[str, str | bytes] = {
    "/etc/cloud/cloud.cfg": "datasource_list: [ Ec2 ]\npreserve_hostname: false\n",
    "/etc/cloud/cloud.cfg.d/90.cfg": "hostname: inst0\n",
    "/usr/bin/cloud-init": "#!/usr/bin/python3\n",
    "/usr/sbin/netplan": "#!/usr/bin/python3\n",
    "/var/lib/cloud/seed/nocloud/meta-data": "instance-id: i-1\nlocal-hostname: inst0\n",
    "/var/lib/cloud/seed/nocloud/user-data": "#cloud-config\n{}\n",
    "/var/lib/cloud/instances/i-1/datasource": "DataSourceNoCloud: DataSourceNoCloud\n",
    "/var/lib/cloud/data/instance-id": "i-1\n",
}
BOOT: dict[str, str | bytes] = {
    "/boot/vmlinuz-6.1.0-1-amd64": b"kernel",
    "/boot/initrd.img-6.1.0-1-amd64": b"initrd",
    "/boot/grub/grub.cfg": "linux /boot/vmlinuz-6.1.0-1-amd64 root=UUID=0 ro\n",
    "/etc/default/grub": 'GRUB_CMDLINE_LINUX=""\n',
    "/etc/inittab": "1:2345:respawn:/sbin/getty 38400 tty1\n",
    "/var/cache/debconf/config.dat": "Name: grub-pc/install_devices\nValue: /dev/sda\n\n",
}
MORE: dict[str, dict[str, str | bytes]] = {
    "Debian tarball": BOOT,
    "Debian cloud": BOOT | CLOUD_INIT,
    "Rocky 9": SELINUX | BOOT | {"/boot/loader/entries/a.conf": "title a\nlinux /vmlinuz-6.1.0-1-amd64\noptions a\n"},
    "Leap 15": BOOT,
    "Alpine": CLOUD_INIT,
}


@dataclass
class Recorder:
    """Stands before a tree: files and directories are the paths that its methods were called with."""

    tree: MountedTree
    was_read: set[str] = field(default_factory=set)
    listed: set[str] = field(default_factory=set)
    written: set[str] = field(default_factory=set)
    seen: set[str] = field(default_factory=set)
    more_names: Sequence[str] = ()

    def list(self, path: str) -> Sequence[str]:
        self.listed.add(path)
        return [*self.tree.list(path), *self.more_names]

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.tree, name)
        kind = {"read": self.was_read, "stat": self.seen, "exists": self.seen, "attribute": self.seen}

        def called(path: str, *arguments: Any, **named: Any) -> Any:
            kind.get(name, self.written).add(path)
            if name == "write_files":
                arguments = (list(arguments[0]), *arguments[1:])
                self.written |= {f"{path}/{file}" for file, _ in arguments[0]}
            return method(path, *arguments, **named)

        return called


class Keys(KeyMaker):
    """Makes no RSA key anew for each run: that takes longer than all else."""

    _kept = KeyMaker()

    def rsa(self) -> Any:
        return self._kept.rsa()


def _modules(tree: Any) -> None:
    grub = read_grub(tree)
    if grub is not None:
        copy_modules(tree, grub, f"/boot/{grub_home(tree)}")


# What create and then rename do in a guest.
STEPS: dict[str, Callable[[Any], object]] = {
    "fstab": lambda tree: fstab.write_entries(tree, []),
    "new": lambda tree: make_instance(tree, NEW, SETTINGS, Keys()),
    "modules": _modules,
    "boot": lambda tree: configure_boot(tree, BootVolumes(root_uuid=UUID), kernel_args="quiet", serial_console=True),
    "rename": lambda tree: make_instance(tree, RENAMED, SETTINGS),
}


def refused_by(tree: Any, steps: Iterable[str]) -> list[DiskImageError]:
    """Run steps; return what they refuse."""
    refused = []
    for step in steps:
        try:
            STEPS[step](tree)
        except DiskImageError as error:
            refused.append(error)
    return refused


@dataclass(frozen=True)
class Ground:
    """A file system for guests, and what lies outside of them on the same one."""

    root: Path

    @property
    def guest(self) -> Path:
        return self.root / "guest"

    @property
    def bait(self) -> Path:
        return self.root / "outside"

    def make(self, system: str) -> None:
        self.clear()
        guest = network_guests.ALL[system].make(self.root, BASE | MORE.get(system, {}))
        if (guest.root / "var/lib/cloud").exists():
            (guest.root / "var/lib/cloud/instance").symlink_to("/var/lib/cloud/instances/i-1")
        if system in ("Debian tarball", "Leap 15"):
            write_grub(guest.root)
        self.bait.mkdir()
        for name in ("file", "passwd", "hostname", "a.conf", "a.yaml", "a.network", "ifcfg-eth0", "a.mod"):
            (self.bait / name).write_text("of the node\n")

    def clear(self) -> None:
        for path in (self.guest, self.bait):
            if path.exists():
                shutil.rmtree(path)

    def is_untouched(self) -> bool:
        return {path.read_text() for path in self.bait.iterdir()} == {"of the node\n"} and len(
            os.listdir(self.bait)
        ) == 8

    def place(self, path: str) -> Path:
        """Return where path is to be made hostile: what is above it is made, and a symlink above is the guest's own."""
        place = Path(f"{self.guest}{path}")
        above = self.guest
        for part in place.relative_to(self.guest).parts[:-1]:
            above = above / part
            if above.is_symlink():
                target = os.readlink(above)
                above = self.guest / target.lstrip("/") if target.startswith("/") else above.parent / target
            above.mkdir(parents=True, exist_ok=True)
        return above / place.name


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    image = tmp_path_factory.mktemp("hostile") / "image"
    with mounted_ext4(image) as root:
        yield Ground(root)


def _gone(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _immutable(path: Path, *, on: bool) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    try:
        flags = bytearray(4)
        fcntl.ioctl(fd, 0x80086601, flags)  # FS_IOC_GETFLAGS
        number = struct.unpack("<I", flags)[0] & ~0x10 | (0x10 if on else 0)
        fcntl.ioctl(fd, 0x40086602, struct.pack("<I", number))
    finally:
        os.close(fd)


def _made_immutable(path: Path, _bait: Path) -> None:
    if not path.exists() or path.is_symlink():
        _gone(path)
        path.write_text("inst0\n")
    _immutable(path, on=True)


def _hard_link(path: Path, _bait: Path) -> None:
    other = path.parent / "another-name"
    if path.is_file() and not path.is_symlink():
        os.link(path, other)
    else:
        _gone(path)
        other.write_text("inst0 192.0.2.10\n")
        os.link(other, path)


def _huge(path: Path, _bait: Path) -> None:
    _gone(path)
    with path.open("wb") as file:
        file.truncate(10 << 30)


def _replacing(make: Callable[[Path, Path], object]) -> Callable[[Path, Path], None]:
    def replace(path: Path, bait: Path) -> None:
        _gone(path)
        make(path, bait)

    return replace


def _odd_names(path: Path, bait: Path) -> None:
    if not path.is_dir():
        _gone(path)
        path.mkdir()
    endings = ("", ".conf", ".cfg", ".yaml", ".network", ".mod", ".rules", ".lease")
    starts = (
        b"a\nb",
        b"\xff\xfe",
        b"\x1b[2J",
        b"%s{}",
        b"ifcfg-\n",
        b"ssh_host_\n_key",
        b"vmlinuz-\n",
        b" ",
        b"x" * 240,
    )
    for start in starts:
        for ending in endings:
            with suppress(FileExistsError):
                os.symlink(bait / "file", os.fsencode(path) + b"/" + start + ending.encode())
    (path / "1\n2.conf").write_bytes(b"\xff\0\n")
    os.mkfifo(path / "fifo.conf")


def _many_names(path: Path, _bait: Path) -> None:
    if not path.is_dir():
        _gone(path)
        path.mkdir()
    for number in range(150):
        for name in (f"{number}.conf", f"ifcfg-{number}"):
            (path / name).touch()


FILES: dict[str, Callable[[Path, Path], None]] = {
    "a link to the node's": _replacing(lambda path, bait: path.symlink_to(bait / "file")),
    "a link upwards": _replacing(lambda path, bait: path.symlink_to("../" * 20 + str(bait / "file").lstrip("/"))),
    "a link to what is not there": _replacing(lambda path, bait: path.symlink_to(bait / "new")),
    "a link through /proc": _replacing(lambda path, bait: path.symlink_to(f"/proc/self/root{bait}/file")),
    "a link to itself": _replacing(lambda path, _: path.symlink_to(path.name)),
    "a link to the root": _replacing(lambda path, _: path.symlink_to("/")),
    "a FIFO": _replacing(lambda path, _: os.mkfifo(path)),
    "a device": _replacing(lambda path, _: os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))),
    "a directory": _replacing(lambda path, _: path.mkdir()),
    "of 10 GiB": _huge,
    "of no text": _replacing(lambda path, _: path.write_bytes(bytes(range(256)) * 8 + b"\n" * 300)),
    "immutable": _made_immutable,
    "a hard link": _hard_link,
}


def _immutable_directory(path: Path, _bait: Path) -> None:
    if not path.is_dir() or path.is_symlink():
        _gone(path)
        path.mkdir()
    _immutable(path, on=True)


DIRECTORIES: dict[str, Callable[[Path, Path], None]] = {
    "a link to the node's": _replacing(lambda path, bait: path.symlink_to(bait)),
    "a link upwards": _replacing(lambda path, bait: path.symlink_to("../" * 20 + str(bait).lstrip("/"))),
    "a link through /proc": _replacing(lambda path, bait: path.symlink_to(f"/proc/self/root{bait}")),
    "a link to itself": FILES["a link to itself"],
    "a FIFO": FILES["a FIFO"],
    "a file": _replacing(lambda path, _: path.write_text("text\n")),
    "odd names": _odd_names,
    "many names": _many_names,
    "immutable": _immutable_directory,
}


def recorded(ground: Ground, system: str) -> dict[str, Recorder]:
    """Return what each step touches in a system."""
    ground.make(system)
    found = {}
    with opened(ground) as tree:
        for step in STEPS:
            found[step] = Recorder(tree)
            assert refused_by(found[step], [step]) == []
    return found


def opened(ground: Ground) -> MountedTree:
    return MountedTree(os.open(ground.guest, os.O_PATH | os.O_DIRECTORY), "disk")


def above(paths: set[str]) -> set[str]:
    found = {posixpath.dirname(path) for path in paths}
    return found | above(found) if found - {"/"} - paths else found


def attempt(
    ground: Ground, system: str, path: str, make: Callable[[Path, Path], None], steps: Iterable[str]
) -> str | None:
    """Run the steps with path made hostile; return what is wrong with what came of it."""
    ground.make(system)
    place = ground.place(path)
    make(place, ground.bait)
    begin, working = time.monotonic(), time.process_time()
    try:
        with opened(ground) as tree:
            refused = refused_by(tree, steps)
    except Exception as error:  # noqa: BLE001 - each is a fault
        return f"{type(error).__name__}: {error}"
    finally:
        if not place.is_symlink() and (place.is_file() or place.is_dir()):
            _immutable(place, on=False)
    seconds = time.process_time() - working
    if seconds > SECONDS or time.monotonic() - begin > HANG_SECONDS:
        return f"{seconds:.1f} s"
    if not ground.is_untouched():
        return "what is outside was touched"
    return next((wrong for error in refused if (wrong := wrong_with(str(error)))), None)


def wrong_with(text: str) -> str | None:
    """Return what is wrong with an error's text."""
    if not text.isprintable() or len(text) > 600:
        return f"not one sentence: {text!r}"
    if not re.search(r"/\w", text):
        return f"names no path: {text}"
    return "a secret is told" if HASH in text or "BEGIN" in text else None


@dataclass(frozen=True)
class Case:
    path: str
    kind: str
    make: Callable[[Path, Path], None]
    steps: tuple[str, ...]


def cases(recorders: Mapping[str, Recorder], done: set[tuple[str, str]], *, every: bool) -> Iterator[Case]:
    """Yield the cases that are not done: some kinds for each path, more for one that is written, all with every."""
    touched = {step: found.was_read | found.written | found.seen for step, found in recorders.items()}
    parents = {step: above(paths) | recorders[step].listed for step, paths in touched.items()}
    written = set().union(*(found.written for found in recorders.values()))
    for of_steps, kinds in ((touched, FILES), (parents, DIRECTORIES)):
        for path in sorted(set().union(*of_steps.values()) - {"/", ""}):
            if path.endswith(".mod") and not path.endswith("/ext2.mod"):
                continue  # one of GRUB's modules is as good as all
            first, count = zlib.crc32(path.encode()), 3 if path in written or kinds is DIRECTORIES else 1
            for kind in list(kinds) if every else [list(kinds)[(first + n) % len(kinds)] for n in range(count)]:
                if (path, kind) not in done:
                    done.add((path, kind))
                    steps = tuple(step for step, paths in of_steps.items() if path in paths)
                    yield Case(path, kind, kinds[kind], steps)


def test_every_path_that_is_read_or_written(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    before = reset_peak_memory()
    monkeypatch.setattr(os, "fsync", lambda _: None)  # that files are synced is tested elsewhere, and takes longest
    every = "PYDISKIMG_EVERY_PATH" in os.environ
    done: set[tuple[str, str]] = set()
    faults = []
    for system in network_guests.ALL:
        for case in cases(recorded(ground, system), done, every=every):
            fault = attempt(ground, system, case.path, case.make, case.steps)
            if fault:
                faults.append(f"{system}: {case.path} is {case.kind}: {fault}")
    ground.clear()
    assert len(done) > 500
    assert faults == []
    assert peak_memory() - before < 600 << 20
