# SPDX-License-Identifier: MIT
"""Customisation scripts: which are run, with which variables, and the messages about failed ones."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ganeti_os.install import scripts
from ganeti_os.install.scripts import ScriptError, ScriptHoldsError, enabled, run, run_script, script_environment
from pydiskimg.errors import StorageError
from pydiskimg.linux.mount_users import holders

ENVIRONMENT = script_environment(
    {"INSTANCE_NAME": "inst1", "OVERLAY": "no"},
    {"IMAGE_TYPE": "qemu", "KERNEL_ARGS": "a='$x' b", "OVERLAY": ""},
    target="/t",
    blockdev="/b",
    root_dev="/r",
    boot_dev=None,
)


def script(path: Path, text: str, mode: int = 0o755) -> str:
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "scripts"
    made.mkdir(mode=0o755)
    return made


def test_enabled_follows_run_parts(directory: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for name in ("b", "B", "10_x", "9-y", "a.sh", "c~", ".d", "é", "e.dpkg-new"):
        script(directory / name, "#!/bin/sh\n")
    script(directory / "plain", "#!/bin/sh\n", 0o644)
    (directory / "sub").mkdir()
    (directory / "dangling").symlink_to("/nowhere")
    (directory / "link").symlink_to(directory / "b")
    assert enabled(str(directory)) == [f"{directory}/{name}" for name in ("10_x", "9-y", "B", "b", "link")]
    skipped = [record.getMessage() for record in caplog.records]
    assert len(skipped) == 8
    assert f"{directory}/plain is skipped: it is not executable" in skipped


def test_no_directory_and_a_file_in_its_place(directory: Path) -> None:
    assert enabled(f"{directory}/none") == []
    (directory / "file").touch()
    with pytest.raises(StorageError, match="cannot list the customisation scripts: Not a directory"):
        enabled(f"{directory}/file")


def test_scripts_where_the_predecessor_has_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ours, theirs = tmp_path / "instance-image.d", tmp_path / "instance-image/hooks"
    assert enabled(str(ours)) == []
    theirs.mkdir(parents=True)
    script(theirs / "grub", "#!/bin/sh\n", 0o644)  # as it is installed: an example
    assert enabled(str(ours)) == []
    assert enabled(f"{tmp_path}/instance-image") == []
    assert not caplog.records
    script(theirs / "grub", "#!/bin/sh\n")
    assert enabled(str(ours)) == []
    assert [record.getMessage() for record in caplog.records] == [
        f"{ours} does not exist, and the scripts in {theirs} are not run (grub); move them, "
        f"set CUSTOMIZE_DIR={theirs}, or make them not executable"
    ]
    caplog.clear()
    assert enabled(f"{tmp_path}/other.d") == []
    assert not caplog.records
    ours.mkdir()
    script(ours / "grub", "#!/bin/sh\n", 0o644)  # as the installation brings it
    assert enabled(str(ours)) == []
    assert f"{ours} has no executable script, and the scripts in {theirs} are not run" in caplog.text
    caplog.clear()
    (ours / "grub").chmod(0o755)
    assert enabled(str(ours)) == [f"{ours}/grub"]
    assert not caplog.records


def test_world_writable_is_refused(directory: Path) -> None:
    path = script(directory / "a", "#!/bin/sh\n", 0o777)
    with pytest.raises(ScriptError, match=r"/a: all users can write to it \(mode 0777\)") as caught:
        enabled(str(directory))
    assert caught.value.script == path
    os.chmod(path, 0o755)
    directory.chmod(0o1777)
    with pytest.raises(ScriptError, match=r"scripts: all users can write to it \(mode 1777\)"):
        enabled(str(directory))
    os.unlink(path)
    assert enabled(str(directory)) == []


def test_what_a_script_gets(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = (
        "env; echo cwd $PWD; umask; cat; echo out; echo err >&2; ls /proc/self/fd; ps -o pid=,sid= -p $$ 2>/dev/null"
    )
    run_script(script(directory / "a", f"#!/bin/sh\n{lines}\n"), ENVIRONMENT)
    captured = capfd.readouterr()
    assert captured.out == ""
    found = captured.err.splitlines()
    for line in (
        *("INSTANCE_NAME=inst1", "TARGET=/t", "BLOCKDEV=/b", "ROOT_DEV=/r", "BOOT_DEV=", "IMAGE_TYPE=qemu"),
        *(f"GUEST_FILE={scripts.GUEST_FILE}", f"GUEST_FILE_PYTHON={sys.executable}"),
        *("KERNEL_ARGS=a='$x' b", "OVERLAY="),
        *(f"PATH={scripts.DEFAULT_PATH}", "cwd /", "0022", "out", "err"),
    ):
        assert line in found
    assert not any(line.startswith(("HOME=", "PYTHON", "LANG=")) for line in found)


def test_descriptors_are_not_inherited(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    read, write = os.pipe()
    os.set_inheritable(write, True)
    try:
        run_script(
            script(directory / "a", f"#!/bin/sh\n[ -e /proc/self/fd/{write} ] && echo inherited\n:\n"), ENVIRONMENT
        )
    finally:
        os.close(read)
        os.close(write)
    assert "inherited" not in capfd.readouterr().err


def test_ganetis_path_is_kept() -> None:
    environment = script_environment(
        {"PATH": "/x", "TARGET": "no"}, {"TARGET": "no"}, target="/t", blockdev="/b", root_dev="/r", boot_dev="/d"
    )
    assert (environment["PATH"], environment["TARGET"], environment["BOOT_DEV"]) == ("/x", "/t", "/d")


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("#!/bin/sh\nexit 3\n", "exited with status 3"),
        ("#!/bin/sh\nkill -9 $$\n", "was killed by signal 9 (SIGKILL)"),
        ("#!/bin/sh\nkill -40 $$\n", "was killed by signal 40"),
        ("echo no first line\n", "it is not a program and has no #! line"),
        ("", "it is not a program and has no #! line"),
        ("#!/no/such/shell -e\n", "its interpreter '/no/such/shell' (in its first line) gives: No such file"),
        ("#!/bin/sh\r\necho\r\n", r"its interpreter '/bin/sh\r'"),
        ("#!/etc/passwd\n", "gives: Permission denied"),
    ],
)
def test_failures(directory: Path, text: str, part: str) -> None:
    path = script(directory / "50-foo", text)
    with pytest.raises(ScriptError) as caught:
        run_script(path, ENVIRONMENT)
    assert str(caught.value).startswith(f"{path}: ")
    assert part in str(caught.value)
    assert caught.value.script == path


def test_the_first_failure_ends_the_row(directory: Path, tmp_path: Path) -> None:
    chosen = [
        script(directory / "1", f"#!/bin/sh\necho 1 >> {tmp_path}/log\n"),
        script(directory / "2", f"#!/bin/sh\necho 2 >> {tmp_path}/log; exit 1\n"),
        script(directory / "3", f"#!/bin/sh\necho 3 >> {tmp_path}/log\n"),
    ]
    with pytest.raises(ScriptError, match="/2: exited with status 1"):
        run(chosen, ENVIRONMENT, target=str(tmp_path))
    assert (tmp_path / "log").read_text() == "1\n2\n"


UNTIL_IT_SLEEPS = 'until [ "$(cat /proc/$!/comm)" = sleep ]; do sleep 0.01; done\n'
HOLDERS = [
    ("cd $TARGET/sub && exec sleep 60", "working directory {target}/sub"),
    ("exec 3<$TARGET/file; exec sleep 60", "open file {target}/file"),
    ("exec $TARGET/sleep 60", "program {target}/sleep"),
]


@pytest.mark.parametrize(("command", "use"), HOLDERS)
def test_a_process_left_behind_is_named(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, use: str
) -> None:
    monkeypatch.setattr(scripts, "HOLDER_SECONDS", 0.3)
    target = tmp_path / "target"
    (target / "sub").mkdir(parents=True)
    (target / "file").touch()
    (target / "sleep").write_bytes(Path("/bin/sleep").read_bytes())
    (target / "sleep").chmod(0o755)
    path = script(directory / "a", f"#!/bin/sh\n({command}) >/dev/null 2>&1 &\n{UNTIL_IT_SLEEPS}")
    with pytest.raises(ScriptHoldsError) as caught:
        run([path], ENVIRONMENT | {"TARGET": str(target)}, target=str(target))
    (holder,) = caught.value.holders
    os.kill(holder.pid, signal.SIGKILL)  # it was left alone until here
    assert holder.use == use.format(target=target)
    assert f"process {holder.pid} ({holder.command}: {holder.use})" in str(caught.value)
    # The program of the guest has a long path here, of which the beginning is shown.
    assert any(line.startswith(holder.command.removesuffix("...")) for line in ("sleep 60", f"{target}/sleep 60"))


def test_a_process_that_ends_soon_is_waited_for(directory: Path, tmp_path: Path) -> None:
    path = script(directory / "a", "#!/bin/sh\n(cd $TARGET && exec sleep 0.3) &\nsleep 0.1\n")
    run([path], ENVIRONMENT | {"TARGET": str(tmp_path)}, target=str(tmp_path))
    assert holders(str(tmp_path)) == []


def test_what_does_not_use_the_target_may_stay(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "HOLDER_SECONDS", 3600.0)  # for which it would be waited
    target = tmp_path / "t"
    target.mkdir()
    (tmp_path / "target-like").mkdir()
    path = script(
        directory / "a",
        f"#!/bin/sh\n(cd {tmp_path}/target-like && exec sleep 60) >/dev/null 2>&1 &\n"
        f"{UNTIL_IT_SLEEPS}echo $! >{tmp_path}/pid\n",
    )
    run([path], ENVIRONMENT, target=str(target))
    os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)


RUNNER = """
import signal, sys
from ganeti_os.install.scripts import run_script
def end(number, frame):
    raise SystemExit(40 + number)
if sys.argv[2] == "handler":
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
try:
    run_script(sys.argv[1], {"PATH": "/usr/bin:/bin"})
finally:
    print("cleaned up", flush=True)
"""


def wait_for(path: Path) -> str:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text().endswith("\n")):
        assert time.monotonic() < deadline, f"{path} was not written"
        time.sleep(0.01)
    return path.read_text()


def gone(pid: int) -> bool:
    """Wait until a process has ended (a zombie has)."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize(
    ("number", "how", "status", "cleaned"),
    [
        (signal.SIGTERM, "handler", 55, True),
        (signal.SIGINT, "handler", 42, True),
        (signal.SIGTERM, "default", -15, False),
        (signal.SIGKILL, "default", -9, False),
    ],
)
def test_our_end_is_the_scripts_end(
    directory: Path, tmp_path: Path, number: int, how: str, status: int, cleaned: bool
) -> None:
    # SIGKILL cannot be handled: then the kernel ends the script itself, and what it started is on its own
    child = (
        "sleep 60 & echo $$ $! > {0}/pids; wait" if number != signal.SIGKILL else "echo $$ > {0}/pids; read x < {0}/f"
    )
    if number == signal.SIGKILL:
        os.mkfifo(tmp_path / "f")
    path = script(directory / "a", f"#!/bin/sh\n{child.format(tmp_path)}\n")
    process = subprocess.Popen([sys.executable, "-c", RUNNER, path, how], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in wait_for(tmp_path / "pids").split()]
    process.send_signal(number)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == status
    assert out == ("cleaned up\n" if cleaned else "")
    assert all(gone(pid) for pid in pids)


def test_a_script_that_ignores_sigterm_is_killed(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "GRACE_SECONDS", 0.3)
    path = script(
        directory / "a", f"#!/bin/sh\ntrap '' TERM\necho $$ > {tmp_path}/pid\nkill -TERM $PPID\nsleep 60\nsleep 60\n"
    )

    class Ended(Exception):  # noqa: N818 - a signal, no error
        pass

    def end(number: int, frame: object) -> None:
        raise Ended

    old = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(Ended):
            run_script(path, ENVIRONMENT)
    finally:
        signal.signal(signal.SIGTERM, old)
    assert gone(int((tmp_path / "pid").read_text()))


def test_handlers_are_restored(directory: Path) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    run_script(script(directory / "a", "#!/bin/sh\n"), ENVIRONMENT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before
