# SPDX-License-Identifier: MIT
"""The Debian packages: built twice in a fresh root, judged by lintian, and installed on fresh nodes."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.fixtures.debian_system import debian_system
from tests.packaging.root import AT, Root, fresh_root

LIBRARY, COMMAND, DEFINITION, BUNDLED = "python3-pydiskimg", "pydiskimg", "ganeti-os-image", "pydiskimg-bundled"
SETTINGS = "/etc/default/ganeti-instance-image"
# The settings file of the package that is replaced, as far as it matters.
OLD_SETTINGS = 'CDINSTALL="no"\nSWAP="no"\nFILESYSTEM="ext3"\nIMAGE_TYPE="tarball"\n'


def check(work: Path, suite: str) -> Iterator[str]:
    """Build the packages of a suite and install them; yields what was done. Needs root."""
    packages = _build(work, suite)
    yield f"built twice, equal, and clean to lintian: {', '.join(path.name for path in packages)}"

    node = fresh_root(work, suite, f"{suite}-node")
    _replace_ganeti_instance_image(node, work)
    yield "installed in the place of ganeti-instance-image, whose settings stay"
    _install(node, packages)
    _use_command(node, suite)
    yield "the command works, with its accelerators; no compiler was installed"
    _upgrade(node)
    yield "a later version was installed over it; what the administrator changed stays"
    node.install("ganeti", "ganeti-3.0" if suite == "bookworm" else "ganeti-3.1", "openssh-client", "iproute2", "mount")
    _provide_image(node, work)
    yield from node.succeed("python3", "-m", "tests.packaging.on_node", directory=AT, network=False).splitlines()
    _purge(node)
    yield "purged: nothing is left but what the administrator made"


def _build(work: Path, suite: str) -> list[Path]:
    """Build twice, at other places and times and with another umask, and return the packages."""
    root = fresh_root(work, suite, f"{suite}-build")
    root.install("lintian", "python3-venv", "build-essential", "ca-certificates")
    root.succeed("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "build-dep", "--yes", AT)
    root.succeed(f"{AT}/packaging/deb.sh", "/tmp/first")
    root.succeed("sh", "-c", f"umask 077; TZ=Pacific/Kiritimati {AT}/packaging/deb.sh /tmp/elsewhere/second")
    root.succeed("sh", "-c", "lintian --allow-root --fail-on error,warning /tmp/first/*.changes")
    first = sorted(root.inside("/tmp/first").glob("*.deb"))
    for path in first:
        if path.read_bytes() != root.inside(f"/tmp/elsewhere/second/{path.name}").read_bytes():
            raise SystemExit(f"{suite}: {path.name}: two builds differ")
    kept = work / f"{suite}-packages"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    return [Path(shutil.copy(path, kept)) for path in first]


def _replace_ganeti_instance_image(node: Root, work: Path) -> None:
    """Install a package of that name with what matters of it: its definition and its settings, changed since."""
    tree = work / "ganeti-instance-image"
    shutil.rmtree(tree, ignore_errors=True)
    for path, text in {
        "DEBIAN/control": "Package: ganeti-instance-image\nVersion: 0.6-1\nArchitecture: all\nMaintainer: root\n"
        "Description: what is replaced\n",
        "DEBIAN/conffiles": f"{SETTINGS}\n",
        "usr/share/ganeti/os/image/create": "#!/bin/sh\nexit 1\n",
        SETTINGS.lstrip("/"): OLD_SETTINGS,
    }.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(text)
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "--build", tree, node.inside("/tmp/old.deb")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    node.install("/tmp/old.deb")
    node.inside(SETTINGS).write_text(OLD_SETTINGS + "SWAP_SIZE=64\n")


def _install(node: Root, packages: list[Path]) -> None:
    for path in packages:
        shutil.copy(path, node.inside("/tmp"))
    # An administrator's own answer to dpkg's question about the settings file: keep it.
    node.inside("/etc/apt/apt.conf.d/50keep").write_text('Dpkg::Options { "--force-confold"; };\n')
    node.install(*(f"/tmp/{path.name}" for path in packages), recommended=True)
    if node.run("dpkg", "--status", "ganeti-instance-image").stdout.count("install ok installed"):
        raise SystemExit("ganeti-instance-image is still installed")
    if "SWAP_SIZE=64" not in node.inside(SETTINGS).read_text():
        raise SystemExit(f"{SETTINGS} was overwritten")
    if node.run("sh", "-c", "command -v gcc cc").returncode == 0:
        raise SystemExit("installing the packages brought a compiler")


def _use_command(node: Root, suite: str) -> None:
    node.succeed("pydiskimg", "mkfs", "-t", "ext4", "--create", "100M", "/tmp/a.raw")
    node.succeed("pydiskimg", "convert", "-c", "-O", "qcow2", "/tmp/a.raw", "/tmp/b.qcow2")
    node.succeed("pydiskimg", "compare", "/tmp/a.raw", "/tmp/b.qcow2")
    module = "google_crc32c" if suite == "bookworm" else "crc32c"
    launcher = node.inside("/usr/bin/pydiskimg").read_text().replace("launch()", f"import isal, {module}")
    node.succeed("/usr/bin/python3", "-I", "-c", launcher.replace("launch\n", "launch as _\n"))
    node.succeed("/usr/bin/python3", "-I", "-c", "import importlib.metadata as m; m.version('pydiskimg')")
    node.succeed("/usr/share/ganeti/os/image/verify", "--help")


def _upgrade(node: Root) -> None:
    """Install the packages again as a later version whose files are the same."""
    configured = node.inside("/etc/ganeti/instance-image/variants.list")
    configured.write_text("default\nmine\n")
    node.inside("/etc/ganeti/instance-image/variants/mine.conf").write_text("SWAP=no\n")
    script = """
    for name in python3-pydiskimg pydiskimg ganeti-os-image; do
      dpkg-deb --raw-extract /tmp/${name}_*_all.deb /tmp/later/$name
      sed -i 's/^Version: .*/&+later/; s/(= \\([^)]*\\))/(= \\1+later)/g' /tmp/later/$name/DEBIAN/control
      dpkg-deb --build /tmp/later/$name /tmp/later/$name.deb >/dev/null
    done
    """
    node.inside("/tmp/later").mkdir()
    node.succeed("sh", "-euc", script)
    node.install(*(f"/tmp/later/{name}.deb" for name in (LIBRARY, COMMAND, DEFINITION)))
    if "+later" not in node.succeed("dpkg-query", "--show", DEFINITION):
        raise SystemExit(f"{DEFINITION} is not the later version")
    if configured.read_text() != "default\nmine\n" or "SWAP_SIZE=64" not in node.inside(SETTINGS).read_text():
        raise SystemExit("the upgrade overwrote what the administrator had changed")


def _provide_image(node: Root, work: Path) -> None:
    (work / "system").mkdir(exist_ok=True)
    system = debian_system(work / "system")
    images = node.inside("/var/cache/ganeti-instance-image")
    shutil.copy(system.tarball, images)
    shutil.copy(system.qcow2, images)


def _purge(node: Root) -> None:
    installed = node.succeed("dpkg-query", "--show", "--showformat", "${Package}\\n").split()
    ours = [name for name in (LIBRARY, COMMAND, DEFINITION, BUNDLED) if name in installed]
    node.succeed("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "purge", "--yes", *ours)
    for path in (
        SETTINGS,
        "/usr/share/ganeti/os/image",
        "/usr/share/ganeti-os-image",
        "/usr/bin/pydiskimg",
        "/usr/lib/pydiskimg",
        "/usr/lib/python3/dist-packages/pydiskimg",
        "/etc/ganeti/instance-image.d",
    ):
        if node.inside(path).exists():
            raise SystemExit(f"purging left {path}")
    if not node.inside("/etc/ganeti/instance-image/variants/mine.conf").exists():
        raise SystemExit("purging took a file that the administrator had made")
