# SPDX-License-Identifier: MIT
"""guest-step: one of create's own steps, for a customisation script that runs it instead of create.

Each script in definition/instance-image.d, named as in ganeti-instance-image, is one line that calls this. A step
changes the guest by create's own code, and never leaves the guest.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence

if __name__ == "__main__":  # started with -I, by its path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from ganeti_os.guest.access import give_access
from ganeti_os.guest.cloud_init import configure_cloud_init, leave_network_without_seed
from ganeti_os.guest.facts.instance import Facts, instance_facts
from ganeti_os.guest.instance import configure_console, give_name_and_network, write_in_order
from ganeti_os.guest.ssh.host_keys import make_host_keys
from ganeti_os.guest.ssh.key_pairs import KeyMaker
from ganeti_os.install.step_environment import paths_of
from ganeti_os.internal_errors import defect
from ganeti_os.log import Messages
from ganeti_os.request import Request, RequestError, parse_request
from ganeti_os.settings.settings import Settings, read_settings
from pydiskimg.errors import DiskImageError, StorageError
from pydiskimg.files.mounted_tree import open_mounted_tree
from pydiskimg.files.tree import Tree
from pydiskimg.fs.probe import probe
from pydiskimg.images.raw import open_raw
from pydiskimg.system.boot.volumes import BootVolumes
from pydiskimg.system.edits.draft import Draft
from pydiskimg.system.edits.renaming import short

log = logging.getLogger(__name__)

_PROGRAM = "guest-step"
_DESCRIPTION = """\
Do one of create's own steps in the guest that is mounted at TARGET, with the settings of the instance. For
customisation scripts, where a setting keeps create from doing the step itself (IDENTITY=no, BOOTLOADER=none).
"""
_NOTHING = "the guest already has all of it; nothing was changed"


class _Run:
    """The context of the steps, from Ganeti and the settings."""

    def __init__(self, target: str, request: Request, settings: Settings, messages: Messages) -> None:
        self.target = target
        self.request = request
        self.settings = settings
        self.messages = messages

    @property
    def facts(self) -> Facts:
        return instance_facts(self.request, self.settings, is_new=True)


def _network(run: _Run, tree: Tree) -> None:
    draft = Draft(tree)
    leave_network_without_seed(draft, run.facts)
    if not write_in_order(draft, give_name_and_network(draft, run.facts)):
        log.info(_NOTHING)


def _drafted(step: Callable[[_Run, Draft], None]) -> Callable[[_Run, Tree], None]:
    """Return a step that writes the changes that the given function puts into a draft."""

    def run(context: _Run, tree: Tree) -> None:
        draft = Draft(tree)
        step(context, draft)
        if not draft.write(lambda _path: 0):
            log.info(_NOTHING)

    return run


def _overlay(run: _Run, _tree: Tree) -> None:
    from ganeti_os.install.overlay import copy_overlay, find_overlay  # imported here: few installations have one

    overlay = find_overlay(run.settings)
    if overlay is None:
        log.info("OVERLAY is not set; nothing was copied")
    else:
        copy_overlay(overlay, run.target, run.messages)


def _console(run: _Run, tree: Tree) -> None:
    if not run.facts.serial_console:
        log.info("Ganeti gives the instance no serial console (hypervisor parameter serial_console)")
    _drafted(lambda context, draft: configure_console(draft, context.facts, context.settings))(run, tree)


def _boot_loader(run: _Run, tree: Tree) -> None:
    """Write GRUB for a system that was built from its files; a disk image keeps its own, and only gets arguments."""
    if run.settings.image_type not in ("tarball", "dump") or not run.request.kernel_inside:
        log.info("GRUB is written for tarballs and dumps with their kernel inside; this instance keeps its boot loader")
        _drafted(lambda context, draft: configure_console(draft, context.facts, context.settings))(run, tree)
        return
    from pydiskimg.images.open_disk import open_disk
    from pydiskimg.system.boot_loader import write_grub

    boot_device = os.environ.get("BOOT_DEV")
    boot = BootVolumes(root_uuid=_uuid(_device("ROOT_DEV")), boot_uuid=_uuid(boot_device) if boot_device else None)
    with open_disk(_device("BLOCKDEV"), writable=True) as disk:
        write_grub(disk, tree, boot, kernel_args=run.settings.kernel_args, serial_console=run.request.serial_console)


def _device(variable: str) -> str:
    """Return the block device in a variable of the script's environment. Raises RequestError without one."""
    path = os.environ.get(variable)
    if not path:
        raise RequestError(f"{variable} is not set; expected a block device, as create gives it to its scripts")
    return path


def _uuid(device: str) -> str:
    """Return the UUID of the file system on a block device."""
    with open_raw(device) as disk:
        content = probe(disk)
    if content is None or content.uuid is None:
        raise StorageError(f"{device}: does not contain a file system with a UUID", errno=None, filename=device)
    return content.uuid


STEPS: dict[str, tuple[Callable[[_Run, Tree], None], str]] = {
    "boot-loader": (_boot_loader, "GRUB, from the system's own files, and its menu (BOOTLOADER=none)"),
    "network": (_network, "host name, /etc/hosts and network (IDENTITY=no)"),
    "ssh-keys": (
        _drafted(lambda run, draft: make_host_keys(draft, f"root@{short(run.request.instance)}", KeyMaker())),
        "ssh host keys of its own (IDENTITY=no)",
    ),
    "root-access": (
        _drafted(lambda run, draft: give_access(draft, run.settings)),
        "AUTHORIZED_KEYS, AUTHORIZED_KEYS_FILE and ROOT_PASSWORD_HASH of the settings file (IDENTITY=no)",
    ),
    "overlay": (_overlay, "OVERLAY, once more"),
    "cloud-init": (
        _drafted(lambda run, draft: configure_cloud_init(draft, run.facts, run.settings)),
        "a seed for cloud-init (IDENTITY=no)",
    ),
    "console": (
        _console,
        "kernel arguments, and a login on the serial port where Ganeti gives it one (IDENTITY=no)",
    ),
}


def _parser() -> argparse.ArgumentParser:
    steps = "".join(f"  {name:12} {meaning}\n" for name, (_, meaning) in STEPS.items())
    parser = argparse.ArgumentParser(
        prog=_PROGRAM,
        description=_DESCRIPTION,
        epilog=f"steps:\n{steps}",
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("step", metavar="STEP", choices=tuple(STEPS), help="one of those below")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the step of argv, or of this process; return the exit status: 0, 1 for a failure, 2 for wrong usage."""
    parser = _parser()
    step = parser.parse_args(argv).step
    target = os.environ.get("TARGET")
    if not target:
        parser.error("TARGET is not set; it is the directory where the guest is mounted")
    messages = Messages(os_name=_PROGRAM, verb=step)
    messages.attach()
    try:
        # Under OS API 5, arguments have the values of later versions' variables, which scripts always get.
        request = parse_request("create", [], {**os.environ, "OS_API_VERSION": "20"})
        settings = read_settings(paths_of(os.environ), variant=request.variant, parameters=request.parameters)
        with open_mounted_tree(target) as tree:
            STEPS[step][0](_Run(target, request, settings, messages), tree)
    except DiskImageError as error:
        messages.failure(error)
        return 1
    except Exception as error:  # noqa: BLE001 - a package that is missing, or a defect, is one sentence, too
        messages.failure(defect(error, "the step"))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
