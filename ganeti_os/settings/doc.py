# SPDX-License-Identifier: MIT
"""What is written from the table of settings: python -m ganeti_os.settings.doc CHECKOUT writes the files anew.

They are checked in, so that they can be read without running anything; a test compares them with the table.
"""

from __future__ import annotations

import os
import sys
import textwrap

from ganeti_os.settings.kinds import DIRECTORY
from ganeti_os.settings.parameters import parameters_list
from ganeti_os.settings.settings import Paths
from ganeti_os.settings.table import SETTINGS, WITHOUT_EFFECT, Setting

_PATHS = Paths()  # a page cannot know how it will be configured

_TEMPLATE_HEAD = """\
# Settings of the Ganeti OS definition @OS_NAME@.
#
# Assignments in the shell's syntax; the file is read, not executed. Values may be quoted and may use $NAME of a
# name that was assigned further up. What is commented out is the default.
"""

_PAGE_HEAD = """\
# Settings

This page is written by `python -m ganeti_os.settings.doc .` from the table that the settings are read and checked by
(`ganeti_os/settings/table.py`). It shows `/etc` and `/var`; other directories can be configured (`--sysconfdir`,
`--localstatedir`).

## Where a setting comes from

The later one wins:

1. the default,
2. the settings file `/etc/default/ganeti-instance-image`,
3. the variant's file `/etc/ganeti/instance-image/variants/NAME.conf` for an instance of `image+NAME`,
4. the instance's OS parameters.

The files are read on the node where a verb runs, so they belong on every node. An empty value stands for the default
of the table, in a variant and in an OS parameter, too: it undoes what the layers below it set. Every value is checked,
also one that a later layer replaces. With `IMAGE_DEBUG=yes`, or `--debug` for Ganeti's command, the log shows what all
settings came to.

## Syntax of the files

Assignments as a shell reads them, one a line or several: `NAME=value`, `NAME='any text'`, `NAME="any text"`, with `#`
comments, `export`, and `$NAME` or `${NAME}` of a name that was assigned further up in the same file. The files are read
and never executed; anything else in them is an error with its line. `yes`, `1` and `true` mean yes, `no`, `0` and
`false` mean no. A name that is not a setting is ignored with a warning in the log.

## The settings
"""

_PAGE_TAIL = """\
## Variants

`variants.list` in the OS directory is a link to `/etc/ganeti/instance-image/variants.list`, which is yours: it names
the variants that `gnt-os list` offers, one a line. An installation leaves it alone where it exists. To publish
`debian`, on every node:

    echo IMAGE_NAME=debian-12 > /etc/ganeti/instance-image/variants/debian.conf
    echo debian >> /etc/ganeti/instance-image/variants.list
    gnt-instance add -o image+debian ...

Where the settings file has an `IMAGE_URL`, a variant whose image is in `IMAGE_DIR` needs a line `IMAGE_URL=`.

The variant `default` is published from the start and needs no file. A published variant without its file is an error,
and so is a name that was forced with `--force-variant` and has no file; one that has a file works without being
published. As long as there is a variant, Ganeti refuses `-o image`: "OS name 'image' must include a variant", before
anything of this OS definition runs; `-o image --force-variant` takes the first variant of the list. When the list is
empty or missing there are no variants, and the OS is just `image`. An instance from such a time gets its variant by

    gnt-instance modify --os-type image+default inst1.example.org

## OS parameters

    gnt-instance add -o image+default -O image_name=debian-12,swap=no ...
    gnt-instance modify -O boot_size=500,grow=yes inst1.example.org
    gnt-instance modify -O swap=default inst1.example.org       # forget the parameter
    gnt-instance reinstall -O image_name=debian-13 inst1.example.org   # shut down before
    gnt-os modify -O image_type=tarball image+default           # of all instances of this OS and variant
    gnt-os info image                                           # what there is

`gnt-instance reinstall` (of Ganeti 3.0) installs with the parameters that the instance has and those that it is
given, and then keeps only the latter: what was set by `add` or `modify` is gone for the next reinstall, rename or
export. Give all of them with each `reinstall`, or set what is to last in a variant's file or by `gnt-os modify`.

A comma in a value is written `\\,`, as in `-O 'kernel_args=console=ttyS0\\,115200'`. `gnt-os modify` wants the name
with its variant as long as there are variants. Ganeti has each node check the parameters (`verify parameters`), and
shows what is wrong with each.

A person who may create an instance, by Ganeti's remote API for example, may set its OS parameters. A setting that
decides what runs as root on a node, or where on a node files are, is therefore never one: directories, `IMAGE_URL` and
`IMAGE_VERIFY` among them. Take care of `KERNEL_ARGS` and `OVERLAY` in customisation scripts: they hold what that person
wrote. An empty value of a parameter undoes what the files set. This is what each parameter gives to that person:

{parameters}
`OS_PARAMETERS` in the settings file is the list of those that are accepted; without it all of them are. With

    OS_PARAMETERS="image_name swap swap_size boot_size filesystem grow"

`nomount` and `cdinstall` cannot switch the customisation scripts off: every verb refuses an instance with another
parameter, and names it. Such an instance can be neither exported nor renamed until the parameter is taken away with
`gnt-instance modify -O nomount=default INSTANCE`. What `gnt-os modify` sets reaches the node in the same way and is
refused, too; set it in the settings file or a variant instead. `OS_PARAMETERS` itself is refused in a variant's file,
because the person who creates an instance chooses its variant.

## What customisation scripts get

Ganeti's own variables (`INSTANCE_NAME`, `INSTANCE_*`, `DISK_*`, `NIC_*`, `OSP_*`, `OS_VARIANT`, `HYPERVISOR`, ...), as
ganeti-os-interface(7) describes them, without `OSP_ROOT_PASSWORD_HASH`, and:

| variable | what |
| --- | --- |
| `TARGET` | the directory where the installed system is mounted |
| `BLOCKDEV` | the block device of the disk |
| `ROOT_DEV` | the block device that is mounted on `TARGET` |
| `BOOT_DEV` | the block device that is mounted on `TARGET/boot`; empty when there is none |
| `GUEST_FILE` | the command that reads and writes the guest's files: `"$GUEST_FILE" --help` |
| `GUEST_STEP` | the command that does one of create's own steps: `"$GUEST_STEP" --help` |
| `GUEST_FILE_PYTHON` | the interpreter that both run with |
| `PATH` | Ganeti's, or a usual one |

And these settings, as they would be written in the file, with `yes` or `no` where there are only these, and `SWAP_SIZE`
empty for the instance's memory (`INSTANCE_BE_maxmem`):

{scripts}

`TARGET` is mounted `nosuid` and `nodev`: device nodes of the guest do nothing. What needs `/dev` in a guest whose image
you trust gets the node's, for the time:

    [ -L "$TARGET/dev" ] && exit 1
    mount --bind /dev "$TARGET/dev"
    chroot "$TARGET" update-initramfs -u
    umount "$TARGET/dev"

## What a script must not do

A script runs as root of the node, over a tree that another person made: the author of the image, or root of a guest
where a dump or an export became the image (and with `import`, which runs the script `grub` over dumps of
ganeti-instance-image). Links in it may lead anywhere, and each program and configuration file in it is theirs.

- Do not open a path below `$TARGET` for reading or writing: `>"$TARGET/etc/hostname"`, `sed -i`, `cp`, `cat` and
  `mkdir -p` follow symbolic links onto the node, where `etc` as much as `hostname` may be one, and wait for ever at a
  FIFO. Use

      echo "$INSTANCE_NAME" | "$GUEST_FILE" write /etc/hostname
      text=$("$GUEST_FILE" read /etc/default/grub) || exit
      printf '%s\\n' "$text" | sed 's/quiet//' | "$GUEST_FILE" write /etc/default/grub

  which follow links as the guest would and refuse what is not a regular file. `write` keeps owner, mode and attributes
  of a file that is there; a file with several names gets a copy, so the other names keep their contents. Files that are
  the same in all guests belong in an [overlay](#the-settings), which is copied with the same care.
- A single name right below `$TARGET` is safe once it is known not to be a link, as `dev` above: nothing changes the
  tree while the script runs.
- Do not `chroot` into an image that you do not trust. What runs there is root of the node, with all its capabilities,
  and a program that is root leaves a chroot at will. The same holds for `grub-install --root-directory` and other
  programs that read configuration as code: do not source (`. "$TARGET/etc/os-release"`) or `eval` what the guest holds.
- Do not mount anything that the guest's files name (its fstab, its crypttab), and do not start `fsck`, `vgscan`,
  `mdadm` or `cryptsetup` on what you do not trust.
- Names that the guest chose go into a command after `--`, in quotes, and into a log without control characters.

## The network of an instance

`create` and `rename` give each NIC in the guest what Ganeti knows of it: the address in `NIC_n_IP`, with the netmask
and the gateway of its network (`gnt-network`), found by its MAC address. A NIC without an address, or with one whose
network is not known, keeps the DHCP of the image; where the image has nothing for it, DHCP is written. An IPv6
address that follows from the MAC address (a network of Ganeti's with an IPv6 subnet) is made by the guest itself. The
first NIC with a gateway has the default route; a gateway outside of the NIC's network is reached on the link.

    gnt-network add --network=192.0.2.0/24 --gateway=192.0.2.1 net1
    gnt-network connect --nic-parameters=mode=bridged,link=br0 net1
    gnt-instance add --net 0:ip=pool,network=net1 ...

| system in the guest | files | how it identifies a NIC |
| --- | --- | --- |
| netplan | `/etc/netplan/95-ganeti.yaml`; other files that name an ethernet go | MAC address |
| systemd-networkd | `/etc/systemd/network/0-ganeti-nicN.network`, before all others | MAC address |
| NetworkManager | `system-connections/ganeti-nicN.nmconnection`, of the highest priority | MAC address |
| ifcfg (Red Hat up to 8, images with such files) | `network-scripts/ifcfg-nicN`, `route-nicN` | MAC address |
| ifupdown, ifupdown2 | lines in `/etc/network/interfaces`; other interfaces' stanzas go | a name `nicN` by udev |
| wicked | `/etc/sysconfig/network/ifcfg-nicN`, `ifroute-nicN` | a name `nicN` by udev |
| netifrc (Gentoo) | lines in `/etc/conf.d/net`, services `net.nicN` | a name `nicN` by udev |
| ifupdown-ng, busybox (Alpine) | as ifupdown | `ethN`, as the kernel counts |

The system is the one that is installed and starts at boot. Where the guest has the address already, its file stays as
it is: an address of another time is replaced in place ([what is changed, and what is left](adr/0054-rename.md)).
Files and lines of ours begin with a comment, and a rename writes them again; without that comment they are the
administrator's. A bridge, a bond or a VLAN in the guest is left alone, with a warning ([which file is
whose](adr/0098-who-writes-the-network.md)).

Where Ganeti knows no address, two files in `NETWORKS_DIR` may give it for the first NIC, in the syntax of the
settings file; other names in them are left to customisation scripts. No installation makes these directories:

    # /etc/ganeti/instance-image/networks/instances/inst1.example.org
    ADDRESS=192.0.2.10
    ADDRESS6=2001:db8::10
    SUBNET=vlan42

    # /etc/ganeti/instance-image/networks/subnets/vlan42
    NETMASK=255.255.255.0
    GATEWAY=192.0.2.1
    NETMASK6=64
    GATEWAY6=2001:db8::1
    DNS_SERVERS="192.0.2.53 2001:db8::53"
    DNS_SEARCH="example.org"

`DNS_SERVERS` and `DNS_SEARCH` may be in either file; without them those of the settings count. They are written
for an instance with a static address: into the system's own files, and into `/etc/resolv.conf` where that is a plain
file.

## Moving over from ganeti-instance-image

Its settings file, its variants and its `variants.list` are read as they are. What has no effect is noted in the log:

{without_effect}

These defaults differ; a file that relies on theirs needs a line:

| setting | ganeti-instance-image | here |
| --- | --- | --- |
| `IMAGE_TYPE` | `dump` | empty: as the file's name ends, else `qemu` |
| `FILESYSTEM` | `ext3` | `ext4` |
| `EXPORT_DIR` | `/tmp` | `/var/tmp` |
| `CUSTOMIZE_DIR` | `/etc/ganeti/instance-image/hooks` | `/etc/ganeti/instance-image.d` |

As long as our directory of scripts has none that is enabled and theirs has some, the log says so. Scripts that read
`common.sh` need a change, as it does not exist here. What they took from it is in the environment, as described above;
a name of your own in the settings file is not.
"""


def settings_page() -> str:
    """Return docs/settings.md."""
    table = ["| setting | values | default | per instance |", "| --- | --- | --- | --- |"]
    table += [f"| {' | '.join(cells)} |" for cells in map(_cells, SETTINGS)]
    meanings = [_wrapped(f"- `{setting.name}`: {setting.meaning}.") for setting in SETTINGS]
    without_effect = "\n".join(f"- `{name}`: {reason}" for name, reason in WITHOUT_EFFECT.items())
    scripts = ", ".join(f"`{setting.name}`" for setting in SETTINGS if setting.for_scripts)
    tail = _PAGE_TAIL.format(parameters=_gifts(), scripts=_wrapped(scripts, indent=""), without_effect=without_effect)
    return f"{_PAGE_HEAD}\n{_lines(table)}\n{_lines(meanings)}\n{tail}"


def _gifts() -> str:
    rows = [f"| `{setting.parameter}` | {setting.gives_away} |" for setting in SETTINGS if setting.per_instance]
    return _lines(["| parameter | what it gives |", "| --- | --- |", *rows])


def settings_template() -> str:
    """Return ganeti-instance-image.in, which meson makes the settings file from."""
    return "\n".join([_TEMPLATE_HEAD, *map(_template_entry, SETTINGS)])


def written_files() -> dict[str, str]:
    """Return the contents of each file that is written from the table, by its path in the checkout."""
    return {
        "docs/settings.md": settings_page(),
        "ganeti_os/definition/ganeti-instance-image.in": settings_template(),
        "ganeti_os/definition/parameters.list": parameters_list(),
    }


def _template_entry(setting: Setting) -> str:
    text = f"{setting.name} ({setting.kind.expected}): {setting.meaning}"
    comment = textwrap.fill(
        text, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False, break_long_words=False
    )
    default = setting.default.format(sysconfdir="@SYSCONFDIR@", localstatedir="@LOCALSTATEDIR@")
    return f"{comment}\n#{setting.name}={_quoted(default, setting)}\n"


def _quoted(text: str, setting: Setting) -> str:
    return f'"{text}"' if setting.kind is DIRECTORY else text


def _cells(setting: Setting) -> tuple[str, ...]:
    default = _PATHS.default(setting)
    parameter = f"`{setting.parameter}`" if setting.per_instance else "no"
    return f"`{setting.name}`", setting.kind.expected, f"`{default}`" if default else "empty", parameter


def _wrapped(text: str, *, indent: str = "  ") -> str:
    return textwrap.fill(text, 120, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def _lines(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def main() -> None:
    """Write the files of the checkout that the argument names."""
    (checkout,) = sys.argv[1:]
    for path, text in written_files().items():
        with open(os.path.join(checkout, path), "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
