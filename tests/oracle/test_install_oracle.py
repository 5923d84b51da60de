# SPDX-License-Identifier: MIT
"""What meson installs, and the contents of a wheel."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from ganeti_os.settings.parameters import PUBLISHED
from tests.fixtures.interpreter import for_first_line

pytestmark = pytest.mark.oracle

ROOT = Path(__file__).parents[2]
VERBS = {"create", "import", "export", "rename", "verify"}
# meson and ninja come with the virtual environment.
SEARCH_PATH = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"


def call(*command: str | Path, cwd: Path, environ: Mapping[str, str] | None = None, umask: int = 0o077) -> str:
    """Run a command; its output, of both kinds, is returned."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": SEARCH_PATH, "HOME": str(cwd), "LC_ALL": "C.UTF-8", **(environ or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=umask,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project without build results, but with the remains of a test run."""
    copied = tmp_path_factory.mktemp("source")
    for name in ("meson.build", "meson_options.txt", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copied)
    for name in ("pydiskimg", "ganeti_os", "manual"):
        shutil.copytree(ROOT / name, copied / name, ignore=shutil.ignore_patterns("__pycache__"))
    for directory in ("ganeti_os", "pydiskimg/linux"):
        (copied / directory / "__pycache__").mkdir()
        (copied / directory / "__pycache__/junk.cpython-311.pyc").touch()
    return copied


def test_install_with_odd_options(source: Path, tmp_path: Path) -> None:
    build, destination = tmp_path / "build", tmp_path / "dest with blanks"
    python = for_first_line(tmp_path)
    call(
        *("meson", "setup", build, "--prefix=/opt/odd prefix", "--sysconfdir=/opt/etc dir", "--localstatedir=/opt/var"),
        *("-Dos-dir=/srv/ganeti os", "-Dos-name=my-image", f"-Dpython={python}", "-Dpython.install_env=prefix"),
        cwd=source,
    )
    call("meson", "install", "-C", build, cwd=source, environ={"DESTDIR": str(destination)})
    os_dir = destination / "srv/ganeti os/my-image"
    assert {path.name for path in os_dir.iterdir()} == VERBS | {
        *("ganeti_api_version", "parameters.list", "variants.list")
    }
    for verb in VERBS:
        check_executable(os_dir / verb, verb, python)
    configured = destination / "opt/etc dir/ganeti/instance-image"
    assert os.readlink(os_dir / "variants.list") == "/opt/etc dir/ganeti/instance-image/variants.list"
    assert (configured / "variants.list").read_text() == "default\n"
    assert (configured / "variants").is_dir()
    assert len((os_dir / "parameters.list").read_text().splitlines()) == len(PUBLISHED)
    settings = destination / "opt/etc dir/default/ganeti-instance-image"
    assert '#IMAGE_DIR="/opt/var/cache/ganeti-instance-image"\n' in settings.read_text()
    assert '#CUSTOMIZE_DIR="/opt/etc dir/ganeti/instance-image.d"\n' in settings.read_text()
    images = destination / "opt/var/cache/ganeti-instance-image"
    assert images.is_dir()
    assert (destination / "opt/etc dir/ganeti/instance-image.d").is_dir()
    check_command(destination / "opt/odd prefix/bin/pydiskimg", python)
    share = destination / "opt/odd prefix/share"
    assert "/opt/etc dir/default" in (share / "man/man7/ganeti-os-my-image.7").read_text().replace("\\-", "-")
    assert (share / "man/man1/pydiskimg-convert.1").exists()
    modes = {
        path: stat.S_IMODE(path.stat().st_mode)
        for path in destination.rglob("*")
        if path.parent.name not in ("my-image", "bin")
    }
    assert [modes.pop(path) for path in list(modes) if path.name in ("guest-file", "guest-step")] == [0o755] * 2
    assert {mode for path, mode in modes.items() if path.is_dir()} == {0o755}
    assert {mode for path, mode in modes.items() if path.is_file()} == {0o644}
    assert not list(destination.rglob("__pycache__"))
    assert not list(destination.rglob("definition"))

    settings.write_text("IMAGE_NAME=mine\n")
    (configured / "variants.list").write_text("mine\n")
    (os_dir / "create").write_text("old")
    images.chmod(0o700)
    out = call("meson", "install", "-C", build, cwd=source, environ={"DESTDIR": str(destination)})
    assert settings.read_text() == "IMAGE_NAME=mine\n"
    assert f"Keeping the existing {settings}" in out
    assert (configured / "variants.list").read_text() == "mine\n"
    assert f"Keeping the existing {os_dir}/variants.list" in out
    assert f"Keeping the existing {images}" in out
    assert stat.S_IMODE(images.stat().st_mode) == 0o700
    check_executable(os_dir / "create", "create", python)


def check_executable(path: Path, verb: str, python: str) -> None:
    """It can be started, prints where its directories are, and ignores the environment of its caller."""
    text = path.read_text()
    first, *_ = text.splitlines()
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert first == f"#!{python} -I"
    assert os.access(first.removeprefix("#!").split(" ")[0], os.X_OK)
    assert f'run_verb("{verb}", sysconfdir="/opt/etc dir", localstatedir="/opt/var")' in text
    assert "@" not in text
    compile(text, str(path), "exec")


def check_command(path: Path, python: str) -> None:
    """The command pydiskimg runs with the interpreter that meson was told."""
    assert stat.S_IMODE(path.stat().st_mode) == 0o755
    assert path.read_text().splitlines()[0] == f"#!{python} -I"


def test_scripts_look_into_other_directories_for_packages(source: Path, tmp_path: Path) -> None:
    """As a distribution lays them out: ganeti_os away from the libraries, and packages of its own that come last."""
    destination, python = tmp_path / "dest", for_first_line(tmp_path)
    call(
        *("meson", "setup", tmp_path / "build", "--prefix=/usr", f"-Dpython={python}", "-Dpython.install_env=prefix"),
        *("-Dos-packages-dir=share/ganeti-os-image", "-Dbundled-dir=/usr/lib/pydiskimg/bundled"),
        cwd=source,
    )
    call("meson", "install", "-C", tmp_path / "build", cwd=source, environ={"DESTDIR": str(destination)})
    (library,) = destination.rglob("pydiskimg/py.typed")
    assert [path.parent for path in destination.rglob("ganeti_os/py.typed")] == [
        destination / "usr/share/ganeti-os-image/ganeti_os"
    ]
    for script in ("usr/share/ganeti/os/image/create", "usr/bin/pydiskimg"):
        lines = (destination / script).read_text().splitlines()
        added = [line.strip() for line in lines if line.strip().startswith("sys.path.")]
        assert added == [
            f'sys.path.insert(0, "/{library.parents[1].relative_to(destination)}")',
            'sys.path.insert(0, "/usr/share/ganeti-os-image")',
            'sys.path.append("/usr/lib/pydiskimg/bundled")',
        ]


def test_installed_definition_runs(source: Path, tmp_path: Path) -> None:
    """The interpreter does not look below the prefix by itself: the executable names the place of the packages."""
    prefix = tmp_path / "prefix"
    call(
        *("meson", "setup", tmp_path / "build", f"--prefix={prefix}", "-Dos-dir=os", "-Dpython=/usr/bin/python3"),
        *("--sysconfdir=etc", "--localstatedir=var"),
        cwd=source,
    )
    call("meson", "install", "-C", tmp_path / "build", cwd=source)
    published = prefix / "os/image/variants.list"
    assert published.is_symlink()
    assert stat.S_ISREG(os.stat(published).st_mode)  # what Ganeti asks of it
    assert published.read_text() == "default\n"
    (tmp_path / "ganeti_os.py").write_text("raise SystemExit('the current directory was searched')\n")
    done = subprocess.run(
        [prefix / "os/image/verify", "parameters"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path), "PYTHONHOME": "/nowhere", "OS_API_VERSION": "99"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "the current directory" not in done.stderr
    check_guest_file(next(prefix.rglob("guest-file")), tmp_path)
    if "No module named" in done.stderr:  # the interpreter of the system lacks what the verbs import
        assert "'ganeti_os" not in done.stderr
        assert str(prefix) in done.stderr
    else:
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.splitlines()[-1].endswith("OS_API_VERSION is '99'; expected one of 5, 10, 15, 20")
        check_verify(prefix / "os/image", prefix / "etc/ganeti/instance-image/variants/lenny.conf")


def check_guest_file(command: Path, tmp_path: Path) -> None:
    """It finds the packages relative to itself, in any environment and current directory."""
    guest = tmp_path / "guest"
    (guest / "etc").mkdir(parents=True)
    environ = {"PATH": "/usr/bin:/bin", "TARGET": str(guest), "GUEST_FILE_PYTHON": "/usr/bin/python3"}
    write = [str(command), "write", "/etc/hostname"]
    subprocess.run(write, cwd=tmp_path, env=environ | {"PYTHONPATH": str(tmp_path)}, input=b"inst1\n", check=True)
    assert (guest / "etc/hostname").read_bytes() == b"inst1\n"
    assert subprocess.run(
        [str(command), "read", "/etc/hostname"], env=environ, capture_output=True, check=True
    ).stdout == (b"inst1\n")


def check_verify(os_dir: Path, missing: Path) -> None:
    """Run it as Ganeti does: in the OS directory, whose variants.list publishes what has no file."""
    (os_dir / "variants.list").write_text("default\nlenny\n")
    for variant, status in (("default", 0), ("lenny", 1)):
        environ = {"PATH": "/usr/bin:/bin", "OS_API_VERSION": "20", "OS_VARIANT": variant, "OSP_SWAP": "no"}
        command = [str(os_dir / "verify"), "parameters"]
        done = subprocess.run(command, cwd=os_dir, env=environ, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (status, "")
        assert not status or f"{missing}: does not exist, but the variant lenny is published" in done.stderr


@pytest.mark.parametrize(
    ("option", "part"),
    [
        ("-Dpython=/no/such/python", "-Dpython=: /no/such/python does not exist"),
        ("-Dos-name=a/b", "-Dos-name=: 'a/b'; expected letters"),
        ("-Dos-name=", "-Dos-name=: ''; expected letters"),
        ("-Dos-dir=/srv/$x", "-Dos-dir=: '/srv/$x/image'; expected an absolute path"),
        ('--sysconfdir=/e"tc', "--sysconfdir: '/e\"tc'; expected an absolute path"),
    ],
)
def test_options_that_make_no_sense(source: Path, tmp_path: Path, option: str, part: str) -> None:
    python = [] if option.startswith("-Dpython=") else [f"-Dpython={for_first_line(tmp_path)}"]
    with pytest.raises(AssertionError, match="ERROR") as caught:
        call("meson", "setup", tmp_path / "build", *python, option, cwd=source)
    assert part in str(caught.value)
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("with_definition", [False, True], ids=["the library's", "the development environment's"])
def test_wheel_holds_the_library_and_the_command(source: Path, tmp_path: Path, *, with_definition: bool) -> None:
    how = {"setup-args": ["-Dganeti-os=true"]} if with_definition else {}
    call(sys.executable, "-c", f"import mesonpy; mesonpy.build_wheel({str(tmp_path)!r}, {how!r})", cwd=source)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    distribution = wheel.name.split("-py3")[0]
    packages = {name for name in names if not name.startswith(f"{distribution}.")}
    assert {name.split("/")[0] for name in packages} == {"pydiskimg"} | ({"ganeti_os"} if with_definition else set())
    data = {name.removeprefix(f"{distribution}.data/") for name in names if name.startswith(f"{distribution}.data/")}
    assert {name for name in data if "/man/" not in name} == {
        "scripts/pydiskimg",
        "data/share/bash-completion/completions/pydiskimg",
        "data/share/zsh/site-functions/_pydiskimg",
        "data/share/fish/vendor_completions.d/pydiskimg.fish",
    }
    assert {"data/share/man/man1/pydiskimg.1", "data/share/man/man1/pydiskimg-info.1"} <= data
    assert zipfile.ZipFile(wheel).read(f"{distribution}.data/scripts/pydiskimg").startswith(b"#!python\n")
    assert not [name for name in names if "launcher" in name]
    assert {"pydiskimg/py.typed", "pydiskimg/cli/info.py"} <= set(names)
    assert not with_definition or {"ganeti_os/py.typed", "ganeti_os/settings/settings.py"} <= set(names)
    assert not [name for name in names if "__pycache__" in name or "definition" in name]
