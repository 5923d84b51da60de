# SPDX-License-Identifier: MIT
"""A call by Ganeti becomes a Request, or one sentence."""

from __future__ import annotations

import os

import pytest

from ganeti_os.request import HelpRequested, InstanceDisk, RequestError, UsageError, help_text, parse_request, usage

CREATE = {
    "OS_API_VERSION": "20",
    "OS_NAME": "image",
    "INSTANCE_NAME": "inst1.example",
    "INSTANCE_BE_maxmem": "512",
    "HYPERVISOR": "kvm",
    "DISK_COUNT": "2",
    "DISK_0_PATH": "/dev/drbd0",
    "DISK_0_ACCESS": "rw",
    "DISK_0_SIZE": "10240",
    "DISK_1_PATH": "/dev/drbd1",
    "NIC_COUNT": "1",
    "NIC_0_MAC": "aa:00:00:00:00:01",
    "NIC_0_MODE": "bridged",
    "NIC_0_NETWORK_NAME": "lan",
    "NIC_0_NETWORK_SUBNET": "192.0.2.0/24",
    "OSP_DHCP": "yes",
    "DEBUG_LEVEL": "0",
    "PATH": "/bin",
}


def with_(**changes: str | None) -> dict[str, str]:
    merged = {**CREATE, **changes}
    return {name: value for name, value in merged.items() if value is not None}


@pytest.mark.parametrize("version", ["10", "15", "20"])
def test_create_by_environment(version: str) -> None:
    request = parse_request("create", [], with_(OS_API_VERSION=version, HOME="/root"))
    assert request.api_version == int(version)
    assert request.instance == "inst1.example"
    assert request.disks == (InstanceDisk(0, "/dev/drbd0", size_mib=10240), InstanceDisk(1, "/dev/drbd1"))
    assert (request.memory_mib, request.hypervisor, request.os_name) == (512, "kvm", "image")
    assert request.kernel_inside
    assert not request.reinstall
    assert request.nics[0].mac == "aa:00:00:00:00:01"
    assert dict(request.nics[0].network) == {"NAME": "lan", "SUBNET": "192.0.2.0/24"}
    assert dict(request.parameters) == {"DHCP": "yes"}
    assert (request.swap_path, request.device, request.device_index, request.size_fd) == (None, None, None, None)
    assert request.environment["DISK_0_PATH"] == "/dev/drbd0"
    assert "HOME" not in request.environment


@pytest.mark.parametrize("kernel", ["", None])
def test_kernel_inside(kernel: str | None) -> None:
    assert parse_request("create", [], with_(INSTANCE_HV_kernel_path=kernel)).kernel_inside


def test_kernel_of_the_node_and_reinstall() -> None:
    environ = with_(
        INSTANCE_HV_kernel_path="/boot/vmlinuz", INSTANCE_REINSTALL="1", OS_VARIANT="lenny", DEBUG_LEVEL="1"
    )
    request = parse_request("create", [], environ)
    assert not request.kernel_inside
    assert request.reinstall
    assert request.variant == "lenny"
    assert request.debug_level == 1


def test_older_name_of_the_memory() -> None:
    assert parse_request("create", [], with_(INSTANCE_BE_maxmem=None, INSTANCE_BE_memory="64")).memory_mib == 64
    assert parse_request("create", [], with_(INSTANCE_BE_maxmem=None)).memory_mib is None


@pytest.mark.parametrize("verb", ["create", "import"])
@pytest.mark.parametrize("environ", [{}, {"OS_API_VERSION": "5"}, {"OS_API_VERSION": ""}])
def test_by_arguments(verb: str, environ: dict[str, str]) -> None:
    request = parse_request(verb, ["-i", "inst1", "-b", "/dev/sda", "-s/dev/sdb"], environ)
    assert (request.api_version, request.instance, request.swap_path) == (5, "inst1", "/dev/sdb")
    assert [disk.path for disk in request.disks] == ["/dev/sda"]
    assert request.device == ("/dev/sda" if verb == "import" else None)
    assert request.kernel_inside
    assert dict(request.environment) == {
        "OS_API_VERSION": "5",
        "INSTANCE_NAME": "inst1",
        "DISK_COUNT": "2",
        "DISK_0_PATH": "/dev/sda",
        "DISK_1_PATH": "/dev/sdb",
    }


def test_export_by_arguments() -> None:
    request = parse_request("export", ["-b", "/dev/sda", "-i", "inst1"], {"EXP_SIZE_FD": "8"})
    assert (request.device, request.device_index, request.size_fd, request.swap_path) == ("/dev/sda", 0, 8, None)


def test_rename_by_arguments() -> None:
    request = parse_request("rename", ["-o", "old", "-n", "new", "-b", "/dev/sda", "-s", "/dev/sdb"], {})
    assert (request.instance, request.old_instance) == ("new", "old")
    assert request.environment["OLD_INSTANCE_NAME"] == "old"


@pytest.mark.parametrize("verb", ["export", "import"])
def test_device_by_environment(verb: str) -> None:
    prefix = verb.upper()
    environ = with_(**{f"{prefix}_DEVICE": "/dev/snapshot", f"{prefix}_INDEX": "1", "EXP_SIZE_FD": "5"})
    request = parse_request(verb, [], environ)
    assert (request.device, request.device_index) == ("/dev/snapshot", 1)
    assert request.size_fd == (5 if verb == "export" else None)
    newer = parse_request(verb, [], with_(**{f"{prefix}_DISK_PATH": "/dev/snapshot"}))
    assert (newer.device, newer.device_index) == ("/dev/snapshot", None)


def test_rename_by_environment() -> None:
    assert parse_request("rename", [], with_(OLD_INSTANCE_NAME="inst0")).old_instance == "inst0"
    assert parse_request("rename", [], with_(OLD_INSTANCE_NAME="inst0", DISK_COUNT="0")).disks == ()


def test_verify() -> None:
    request = parse_request("verify", ["parameters"], {"OS_API_VERSION": "20", "OSP_X": "1", "OS_VARIANT": "v"})
    assert (request.checks, dict(request.parameters), request.variant) == (("parameters",), {"X": "1"}, "v")
    assert parse_request("verify", ["parameters"], {}).api_version == 20


@pytest.mark.parametrize("verb", ["create", "import", "export", "rename", "verify"])
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(verb: str, option: str) -> None:
    with pytest.raises(HelpRequested) as caught:
        parse_request(verb, [option], {"OS_API_VERSION": "99"})
    assert str(caught.value) == help_text(verb)
    assert usage(verb).startswith(f"usage: {verb}")


@pytest.mark.parametrize(
    ("verb", "argv", "environ", "part"),
    [
        ("create", [], {}, "missing -i instance_name, -b blockdev_sda, -s blockdev_sdb; for a call by environment"),
        ("create", ["-i", "x", "-b", "/dev/a"], {}, "missing -s blockdev_sdb"),
        ("create", ["-i", "x", "-b", "/dev/a", "-s", "/dev/b", "more"], {}, "found the argument 'more'"),
        ("create", ["-i", "x", "-x"], {}, "option -x not recognized"),
        ("create", ["--instance=x"], {}, "option --instance not recognized"),
        ("create", ["-i"], {}, "option -i requires argument"),
        ("create", ["-i", "x", "-i", "y"], {}, "-i is given twice"),
        ("export", ["-i", "x", "-b", "/dev/a", "-s", "/dev/b"], {}, "option -s not recognized"),
        ("rename", ["-n", "x", "-b", "/dev/a", "-s", "/dev/b"], {}, "missing -o old_name"),
        ("create", ["x"], CREATE, "takes no arguments with OS API 20"),
        ("verify", [], {"OS_API_VERSION": "20"}, "found no argument, expected parameters"),
        ("verify", ["parameters", "disks"], {"OS_API_VERSION": "20"}, "found 'disks', expected parameters"),
    ],
)
def test_wrong_arguments(verb: str, argv: list[str], environ: dict[str, str], part: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_request(verb, argv, environ)
    assert part in str(caught.value)
    assert caught.value.usage == usage(verb)


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"OS_API_VERSION": "25"}, "OS_API_VERSION is '25'; expected one of 5, 10, 15, 20"),
        ({"OS_API_VERSION": "020"}, "OS_API_VERSION is '020'"),
        ({"INSTANCE_NAME": None}, "INSTANCE_NAME is empty or not set"),
        ({"INSTANCE_NAME": ""}, "INSTANCE_NAME is empty or not set"),
        ({"INSTANCE_NAME": "../etc"}, "not an instance name"),
        ({"INSTANCE_NAME": "a/b"}, "not an instance name"),
        ({"INSTANCE_NAME": "a..b"}, "not an instance name"),
        ({"INSTANCE_NAME": "-a"}, "not an instance name"),
        ({"INSTANCE_NAME": "a\nb"}, r"'a\nb', not an instance name"),
        ({"INSTANCE_NAME": "a\x1b[2J"}, "not an instance name"),
        ({"INSTANCE_NAME": "a" * 256}, "not an instance name"),
        ({"DISK_COUNT": None}, "DISK_COUNT is not set"),
        ({"DISK_COUNT": "two"}, "DISK_COUNT is 'two'"),
        ({"DISK_COUNT": "-1"}, "DISK_COUNT is '-1'"),
        ({"DISK_COUNT": "²"}, "DISK_COUNT is '²'"),
        ({"DISK_COUNT": "0"}, "DISK_COUNT is 0; create needs at least one disk"),
        ({"DISK_COUNT": "999999999"}, "DISK_COUNT is 999999999; expected a number from 0 to 1024"),
        ({"DISK_COUNT": "9" * 5000}, "expected a whole number"),
        ({"DISK_COUNT": "3"}, "DISK_2_PATH is not set"),
        ({"DISK_0_PATH": None}, "DISK_0_PATH is not set"),
        ({"DISK_0_PATH": None, "DISK_0_URI": "rbd:x"}, "disk 0 is reachable only by DISK_0_URI (rbd:x)"),
        ({"DISK_0_PATH": "disk0"}, "DISK_0_PATH is 'disk0'; expected the absolute path"),
        ({"DISK_0_PATH": "/dev/a\n"}, "expected the absolute path"),
        ({"DISK_1_PATH": "/dev/drbd0"}, "DISK_1_PATH is '/dev/drbd0', which DISK_0_PATH already names"),
        ({"DISK_0_ACCESS": "w"}, "DISK_0_ACCESS is 'w'; expected rw or ro"),
        ({"DISK_0_SIZE": "10G"}, "DISK_0_SIZE is '10G'"),
        ({"NIC_COUNT": "x"}, "NIC_COUNT is 'x'"),
        ({"NIC_COUNT": "1025"}, "NIC_COUNT is 1025"),
        ({"INSTANCE_BE_maxmem": "0"}, "INSTANCE_BE_maxmem is 0"),
        ({"INSTANCE_BE_maxmem": "1g"}, "INSTANCE_BE_maxmem is '1g'"),
        ({"INSTANCE_REINSTALL": "maybe"}, "INSTANCE_REINSTALL is 'maybe'"),
        ({"OS_VARIANT": "../x"}, "OS_VARIANT is '../x'"),
        ({"DEBUG_LEVEL": "high"}, "DEBUG_LEVEL is 'high'"),
    ],
)
def test_environment_that_makes_no_sense(changes: dict[str, str | None], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request("create", [], with_(**changes))
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("verb", "changes", "part"),
    [
        ("export", {}, "EXPORT_DEVICE is not set"),
        ("import", {"IMPORT_DEVICE": "x"}, "IMPORT_DEVICE is 'x'"),
        ("export", {"EXPORT_DEVICE": "/x", "EXPORT_INDEX": "a"}, "EXPORT_INDEX is 'a'"),
        ("export", {"EXPORT_DEVICE": "/x", "EXP_SIZE_FD": "a"}, "EXP_SIZE_FD is 'a'"),
        ("import", {"IMPORT_DEVICE": "/x", "DISK_COUNT": "0"}, "import needs at least one disk"),
        ("rename", {}, "OLD_INSTANCE_NAME is empty or not set"),
        ("rename", {"OLD_INSTANCE_NAME": "a/b"}, "OLD_INSTANCE_NAME is 'a/b'"),
    ],
)
def test_other_verbs_environment_that_makes_no_sense(verb: str, changes: dict[str, str], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request(verb, [], with_(**changes))
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (["-i", "", "-b", "/dev/a", "-s", "/dev/b"], "-i is empty or not set"),
        (["-i", "x", "-b", "", "-s", "/dev/b"], "-b is ''"),
        (["-i", "x", "-b", "/dev/a", "-s", "/dev/a"], "-s is '/dev/a', which -b already names"),
    ],
)
def test_arguments_that_make_no_sense(argv: list[str], part: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_request("create", argv, {})
    assert part in str(caught.value)


def test_frozen() -> None:
    request = parse_request("create", [], CREATE)
    with pytest.raises(AttributeError):
        request.instance = "other"  # type: ignore[misc]  # what is tested


def test_a_relative_path_on_the_command_line_is_meant_from_here() -> None:
    request = parse_request("create", ["-i", "x", "-b", "sda", "-s", "./sdb"], {})
    assert (request.disks[0].path, request.swap_path) == (os.path.abspath("sda"), os.path.abspath("sdb"))


def test_more_disks_and_nics_than_ganeti_has_today() -> None:
    paths = {f"DISK_{index}_PATH": f"/dev/disk{index}" for index in range(100)}
    request = parse_request("create", [], with_(DISK_COUNT="100", NIC_COUNT="100", NIC_99_IP="10.0.0.9", **paths))
    assert [disk.path for disk in request.disks] == list(paths.values())
    assert [nic.index for nic in request.nics if nic.ip == "10.0.0.9"] == [99]
