# SPDX-License-Identifier: MIT
"""A fresh Debian in a directory, and commands that run as root in it, each with mounts that end with it."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
AT = "/project"  # where a root has what the source distribution holds, read-only

_ENTER = """
root=$1 directory=$2 project=$3; shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /dev "$root/dev"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mkdir -p "$root/project"
mount --bind "$project" "$root/project"
mount -o remount,bind,ro "$root/project"
certificates=/etc/ssl/certs/ca-certificates.crt  # this machine's: there may be one more on the way to the servers
[ ! -e $certificates ] || [ ! -e "$root$certificates" ] || mount --bind $certificates "$root$certificates"
# The namespace's own root is this one, so that what enters the namespace sees no other.
mkdir -p "$root/former"
cd "$root"
pivot_root . former
exec chroot . sh -c 'umount --lazy /former; cd "$1"; shift; exec "$@"' sh "$directory" "$@"
"""


@dataclass(frozen=True, slots=True)
class Root:
    """The root directory of a Debian; made by fresh_root()."""

    path: Path
    project: Path

    def succeed(self, *command: str, directory: str = "/", network: bool = True) -> str:
        """Run a command that must succeed; returns what it prints. Without network it has a loopback device alone."""
        done = self.run(*command, directory=directory, network=network)
        if done.returncode:
            raise SystemExit(f"{self.path.name}: {' '.join(command)}: status {done.returncode}\n{done.stdout}")
        return done.stdout

    def run(self, *command: str, directory: str = "/", network: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command; its output and errors come together."""
        apart = ["--mount", "--pid", "--fork", "--kill-child", *([] if network else ["--net"])]
        return subprocess.run(
            ["unshare", *apart, "sh", "-euc", _ENTER, "sh", str(self.path), directory, str(self.project), *command],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def install(self, *packages: str, recommended: bool = False) -> str:
        """Install Debian packages by their names, or from files by paths that begin with ./ or /."""
        options = [] if recommended else ["--no-install-recommends"]
        return self.succeed("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "install", "--yes", *options, *packages)

    def inside(self, path: str) -> Path:
        """Return where the root's path is on this machine."""
        return self.path / path.lstrip("/")


def fresh_root(work: Path, suite: str, name: str) -> Root:
    """Make the directory `name` in work anew: Debian's suite with apt and nothing else; the archive of it is kept."""
    archive = work / f"{suite}.tar"
    if not archive.exists():
        unfinished = archive.with_suffix(".unfinished.tar")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=apt", suite, str(unfinished)], check=True)
        unfinished.rename(archive)
    root = Root(work / name, work / "source")
    shutil.rmtree(root.path, ignore_errors=True)
    root.path.mkdir()
    subprocess.run(
        ["tar", "--extract", f"--file={archive}", f"--directory={root.path}", "--exclude=./dev/*"], check=True
    )
    _configure(root)
    root.succeed("apt-get", "-qq", "update")
    return root


def _configure(root: Root) -> None:
    """Let the root reach what this machine reaches, and start no daemon when a package is installed."""
    shutil.copy("/etc/resolv.conf", root.inside("/etc/resolv.conf"))
    for path in Path("/etc/apt/apt.conf.d").iterdir():
        owned = subprocess.run(["dpkg-query", "--search", path], capture_output=True, check=False).returncode == 0
        if "Acquire" in path.read_text() and not owned:  # a package's own comes with the package
            shutil.copy(path, root.inside("/etc/apt/apt.conf.d"))
    names = root.inside("/etc/nsswitch.conf")  # which an installer writes; without it DNS is asked before /etc/hosts
    if not names.exists():
        names.write_text("hosts: files dns\n")
    policy = root.inside("/usr/sbin/policy-rc.d")
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith("PIP_") or name.lower().endswith("_proxy") or name == "SSL_CERT_FILE"
    }
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return kept | {"PATH": path, "HOME": "/root", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
