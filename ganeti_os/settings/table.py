# SPDX-License-Identifier: MIT
"""SETTINGS, the one table of names, kinds, defaults and meanings: reading, checks and documentation use it."""

from __future__ import annotations

from dataclasses import dataclass

from ganeti_os.settings.kinds import (
    ARCHITECTURE,
    ARCHITECTURES,
    BOOLEAN,
    DIRECTORY,
    DNS_SEARCH,
    DNS_SERVERS,
    FILE,
    MAX_LINE,
    MAX_NAME_BYTES,
    SIZE,
    URL,
    ReasonError,
    ValueKind,
    authorized_keys,
    file_name,
    one_line,
    one_of,
    password_hash,
    path_of_file,
    shown,
)
from pydiskimg.fs.probe.kind import EXT_TYPES


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table.

    default is the text as written in the file, with {sysconfdir} and {localstatedir} for the configured directories;
    empty if the default is a rule. gives_away is not empty if the setting may be an OS parameter: it says what a person
    who may create instances can do with it. for_scripts: customisation scripts get it as an environment variable.
    node_only: a variant cannot set it, because the person who creates an instance chooses the variant. secret: its
    value never appears in a message, and customisation scripts do not get it.
    """

    name: str
    kind: ValueKind
    default: str
    meaning: str
    gives_away: str = ""
    for_scripts: bool = False
    node_only: bool = False
    secret: bool = False

    @property
    def per_instance(self) -> bool:
        """True if it may be an OS parameter."""
        return bool(self.gives_away)

    @property
    def field(self) -> str:
        """The name in Settings: in lower case, and with the unit of a size."""
        return self.name.lower() + ("_mib" if self.kind is SIZE else "")

    @property
    def parameter(self) -> str:
        """The name as an OS parameter."""
        return self.name.lower()


def checked(setting: Setting, text: str, *, native: str) -> object:
    """Return the value of a non-empty text; native is the node's ARCH.

    Raises ValueError, whose text continues a sentence that begins with the setting's name.
    """
    expected = setting.kind.expected
    found = "something else, which is not shown" if setting.secret else shown(text)
    is_native = setting.name == "ARCH" and text == native
    if setting.name == "ARCH" and native not in ARCHITECTURES:
        expected += f", or {native} as this node"
    try:
        return text if is_native else setting.kind.check(text)
    except ReasonError:
        raise
    except ValueError:
        raise ValueError(f"is {found}; expected {expected}") from None


def _parameter_names(text: str) -> tuple[str, ...]:
    """Return the names of settings that may be OS parameters, in the order of the table."""
    names = text.lower().split()
    possible = [setting.parameter for setting in SETTINGS if setting.per_instance]
    for name in names:
        if name in possible or names == [NO_NAMES]:
            continue
        never = "can never be an OS parameter" if name.upper() in BY_NAME else "is not a setting"
        raise ReasonError(f"lists {shown(name)}, which {never}; possible are {NO_NAMES}, or {', '.join(possible)}")
    return tuple(name for name in possible if name in names)


NO_NAMES = "none"
SETTINGS = (
    Setting(
        "CDINSTALL",
        BOOLEAN,
        "no",
        "leave the disk as it is: the instance is installed from a CD",
        gives_away="an instance without the administrator's image and scripts, on a disk that keeps what a former "
        "instance wrote to it",
    ),
    Setting(
        "SWAP",
        BOOLEAN,
        "yes",
        "make a swap area when the disk is built from a tarball or dumps",
        gives_away="how the instance's own disk is divided",
        for_scripts=True,
    ),
    Setting(
        "SWAP_SIZE",
        SIZE,
        "",
        "size of the swap area in MiB; empty: the instance's memory",
        gives_away="how the instance's own disk is divided",
        for_scripts=True,
    ),
    Setting(
        "BOOT_SIZE",
        SIZE,
        "100",
        "size of /boot in MiB, made when the kernel is inside; left empty where a tarball's /boot is a symlink",
        gives_away="how the instance's own disk is divided",
        for_scripts=True,
    ),
    Setting(
        "FILESYSTEM",
        one_of(*EXT_TYPES),
        "ext4",
        "file system made when the disk is built from a tarball or dumps",
        gives_away="which of these file systems the node's kernel mounts for customisation scripts",
        for_scripts=True,
    ),
    Setting(
        "PARTITION_TABLE",
        one_of("auto", "mbr", "gpt"),
        "auto",
        "partition table made when the disk is built from a tarball or dumps; auto: an MBR, and a GPT from 2 TiB on",
        gives_away="how the instance's own disk is divided",
        for_scripts=True,
    ),
    Setting(
        "BOOTLOADER",
        one_of("auto", "none"),
        "auto",
        "boot loader of a disk that is built from a tarball or dumps; auto: GRUB for a BIOS, from the system's own "
        "/usr/lib/grub/i386-pc, when the kernel is inside; none: the image or a customisation script brings another, "
        "and no kernel's arguments are changed",
        gives_away="an instance that does not boot by itself",
        for_scripts=True,
    ),
    Setting(
        "IMAGE_NAME",
        ValueKind(
            f"a file name without / and without a dot in front, of {MAX_NAME_BYTES} bytes at most", file_name, ""
        ),
        "",
        "the image: a file's whole name, such as debian-13-genericcloud-amd64.qcow2, where there is a file of that "
        "name; else, such as debian-12, the name of IMAGE_NAME-ARCH.img (or another ending, as IMAGE_TYPE says)",
        gives_away="every image in IMAGE_DIR or at IMAGE_URL, also one that is meant for other people, and room in "
        "CACHE_DIR for each that is fetched",
        for_scripts=True,
    ),
    Setting(
        "IMAGE_TYPE",
        one_of("qemu", "tarball", "raw", "qcow2", "dump"),
        "",
        "kind of the image, and the ending where IMAGE_NAME has none: .img (qemu: raw or qcow2, by looking), .tar.gz "
        "(tarball), .raw, .qcow2, or -root.dump and -boot.dump (dump); a disk image may be compressed (.xz, .gz, .zst, "
        ".bz2); empty: tarball or dump where IMAGE_NAME ends so, else qemu",
        gives_away="as IMAGE_NAME, the files with another ending",
        for_scripts=True,
    ),
    Setting("IMAGE_DIR", DIRECTORY, "{localstatedir}/cache/ganeti-instance-image", "where the images are"),
    Setting(
        "IMAGE_URL",
        URL,
        "",
        "where images are fetched from, as IMAGE_URL/FILE; empty: they are in IMAGE_DIR already",
    ),
    Setting(
        "IMAGE_PROXY",
        URL,
        "",
        "the proxy through which IMAGE_URL is reached, as http://HOST:PORT; empty: none, since Ganeti starts the verbs "
        "without the node's http_proxy",
    ),
    Setting(
        "IMAGE_VERIFY",
        BOOLEAN,
        "yes",
        "use a fetched image only when it matches its checksum beside it: SHA256SUMS, SHA512SUMS, CHECKSUM, "
        "FILE.sha256, FILE.sha512, FILE.CHECKSUM or (SHA-1) FILE.sig, or as Arch, CentOS, Fedora, FreeBSD and OpenWrt "
        "name it",
    ),
    Setting(
        "IMAGE_KEYRING",
        FILE,
        "",
        "file of OpenPGP keys (as gpg --export writes them), one of which must have signed the checksum file: around "
        "its text, or in FILE.gpg, FILE.asc, FILE.sign or FILE.sig beside it; or the image itself; empty: signatures "
        "are not verified",
    ),
    Setting("IMAGE_CLEANUP", BOOLEAN, "no", "delete a fetched image after the installation"),
    Setting("CACHE_DIR", DIRECTORY, "{localstatedir}/cache/ganeti-instance-image", "where fetched images are kept"),
    Setting(
        "ARCH",
        ARCHITECTURE,
        "",
        "architecture in the image's name, where IMAGE_NAME is not a whole file name; its other names are looked for, "
        "too (amd64 for x86_64); empty: the node's",
        gives_away="as IMAGE_NAME, the files for another architecture",
        for_scripts=True,
    ),
    Setting(
        "NOMOUNT",
        BOOLEAN,
        "no",
        "copy the image and change nothing inside; for systems without Linux",
        gives_away="an instance without the administrator's scripts and overlay, which rename leaves as it is",
    ),
    Setting(
        "GUEST_MOUNT",
        BOOLEAN,
        "yes",
        "mount what a guest or an image has as its root, where that is not an ext2, ext3 or ext4 that is read and "
        "changed without the kernel: xfs, btrfs; also to let it grow, and any of them for customisation scripts; "
        "no: never, so that these are left as they are",
        node_only=True,
    ),
    Setting(
        "IDENTITY",
        BOOLEAN,
        "yes",
        "make the system the instance: its name, its network, keys and a machine id of its own; no: leave the image's",
        gives_away="an instance that has the image's keys and is not named by its instance's name",
    ),
    Setting(
        "IMPORT_IDENTITY",
        one_of("keep", "new"),
        "keep",
        "what an imported system is: keep: the machine that was backed up, with its keys and machine id; new: another "
        "machine beside it, with its own",
        gives_away="which keys the instance's own system has",
    ),
    Setting(
        "ROOT_PASSWORD_HASH",
        ValueKind("a hash such as 'mkpasswd -m yescrypt' or 'openssl passwd -6' prints, or *", password_hash, ""),
        "",
        "root's password in a new instance, as a crypt(5) hash in single quotes, since it has dollar signs; *: no "
        "login by password; empty: the image's; a person who can read this file can read the hash, so a private or "
        "secret OS parameter is better",
        gives_away="root's password in the instance's own system",
        secret=True,
    ),
    Setting(
        "AUTHORIZED_KEYS",
        ValueKind("lines of authorized_keys as sshd(8) has them", authorized_keys, ""),
        "",
        "ssh keys that may log into a new instance as root, one on each line, added to those of the image",
        gives_away="who may log into the instance's own system as root",
    ),
    Setting(
        "AUTHORIZED_KEYS_FILE",
        ValueKind("the absolute path of a file", path_of_file, ""),
        "",
        "file on the node with more keys for AUTHORIZED_KEYS; only root may write it",
    ),
    Setting(
        "CUSTOMIZE_DIR",
        DIRECTORY,
        "{sysconfdir}/ganeti/instance-image.d",
        "where the customisation scripts are; run as root, in C order",
    ),
    Setting(
        "OVERLAY",
        ValueKind("the name of a directory in OVERLAYS_DIR", file_name, ""),
        "",
        "directory whose files are copied over the installed system",
        gives_away="every directory in OVERLAYS_DIR, also one that is meant for other people, or none where the "
        "settings file names one",
        for_scripts=True,
    ),
    Setting(
        "OVERLAYS_DIR",
        DIRECTORY,
        "{sysconfdir}/ganeti/instance-image/overlays",
        "where overlays are",
        for_scripts=True,
    ),
    Setting(
        "NETWORKS_DIR",
        DIRECTORY,
        "{sysconfdir}/ganeti/instance-image/networks",
        "where the files instances/NAME and subnets/NAME with static addresses are",
        for_scripts=True,
    ),
    Setting(
        "DNS_SERVERS",
        DNS_SERVERS,
        "",
        "name servers of an instance with a static address; those of a file in NETWORKS_DIR come before them",
        gives_away="which name servers the instance asks, as its own root may choose, too",
        for_scripts=True,
    ),
    Setting(
        "DNS_SEARCH",
        DNS_SEARCH,
        "",
        "domains in which an instance with a static address looks for a short name; empty: its own domain",
        gives_away="where the instance looks for short names, as its own root may choose, too",
        for_scripts=True,
    ),
    Setting(
        "CLOUD_USER_DATA",
        ValueKind("the absolute path of a file", path_of_file, ""),
        "",
        "file on the node with user-data for images with cloud-init, given to it as it is; only root may write it; "
        "empty: what the image has, or none",
    ),
    Setting(
        "VARIANTS_DIR",
        DIRECTORY,
        "{sysconfdir}/ganeti/instance-image/variants",
        "where the settings of variants are, as NAME.conf",
        node_only=True,
    ),
    Setting(
        "KERNEL_ARGS",
        ValueKind(f"one line of {MAX_LINE} characters at most", one_line, ""),
        "",
        "arguments of the kernel, added to those of the installed system's boot menu where they are missing",
        gives_away="with which arguments the instance's own kernel starts, and a line of text of that person's in the "
        "environment of the customisation scripts",
        for_scripts=True,
    ),
    Setting(
        "EXPORT_COMPRESSION",
        one_of("none", "zlib", "zstd"),
        "zlib",
        "how an export is compressed",
        gives_away="how much room and processor time an export takes",
    ),
    Setting(
        "EXPORT_DIR",
        DIRECTORY,
        "/var/tmp",  # noqa: S108 - a file without a name
        "where an import keeps meanwhile a disk image made by ganeti-instance-image, and of other backups the "
        "beginning where IMPORT_IDENTITY=new may not mount",
    ),
    Setting(
        "IMPORT_FORMAT",
        one_of("auto", "qcow2", "raw", "tar"),
        "auto",
        "what a backup is: qcow2 (our export), raw (a disk's bytes) or tar (ganeti-instance-image); auto looks",
        gives_away="which reader gets the backup; tar takes room in EXPORT_DIR",
    ),
    Setting(
        "GROW",
        BOOLEAN,
        "yes",
        "let the last partition and its file system grow to the end of the disk, after a disk image was installed or a "
        "backup imported; never with NOMOUNT=yes",
        gives_away="how the instance's own disk is divided",
    ),
    Setting(
        "WIPE",
        one_of("auto", "yes", "no"),
        "auto",
        "zero what an installation or import leaves of the disk as a former instance wrote it; auto: where the file "
        "system or device frees the blocks instead of writing zeros; yes: also where zeros must be written, which "
        "takes as long as the disk is large; no: where Ganeti wipes new disks itself",
    ),
    Setting(
        "OS_PARAMETERS",
        ValueKind(f"names of OS parameters with blanks between them, or {NO_NAMES}", _parameter_names),
        "",
        "the OS parameters that are accepted, of those that gnt-os info lists; empty: all of them",
        node_only=True,
    ),
    Setting(
        "IMAGE_DEBUG",
        BOOLEAN,
        "no",
        "show what is done in detail",
        gives_away="a log that shows all settings of the node",
    ),
)
BY_NAME = {setting.name: setting for setting in SETTINGS}

# Names of ganeti-instance-image 0.7 that have no effect here, and why.
WITHOUT_EFFECT = {
    "FDISK": "no program makes the partitions",
}
