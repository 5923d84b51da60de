# SPDX-License-Identifier: MIT
"""The files of the OS directory: the settings template says what the table says, and an edited one stays."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ganeti_os.request import API_VERSIONS
from ganeti_os.settings.doc import main as write_files
from ganeti_os.settings.doc import written_files
from ganeti_os.settings.parameters import PUBLISHED
from ganeti_os.settings.settings import Layer, Paths, Settings
from ganeti_os.settings.shellfile import parse_shell_text
from ganeti_os.settings.table import BY_NAME, SETTINGS, WITHOUT_EFFECT
from ganeti_os.settings.variants import DEFAULT_VARIANT
from tests.fixtures.checkout import ROOT
from tests.fixtures.interpreter import for_first_line

DEFINITION = ROOT / "ganeti_os" / "definition"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, DEFINITION / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def template(sysconfdir: str, localstatedir: str) -> str:
    text = (DEFINITION / "ganeti-instance-image.in").read_text()
    values = {"SYSCONFDIR": sysconfdir, "LOCALSTATEDIR": localstatedir, "OS_NAME": "image"}
    return re.sub("@([A-Z_]+)@", lambda match: values[match.group(1)], text)


def test_template_sets_nothing() -> None:
    assert parse_shell_text(template("/etc", "/var").encode(), "template") == {}


def test_template_shows_the_defaults() -> None:
    text = re.sub("^#(?=[A-Z])", "", template("/e t", "/v"), flags=re.MULTILINE)
    found = {name: item.value for name, item in parse_shell_text(text.encode(), "template").items()}
    assert found == {setting.name: Paths("/e t", "/v").default(setting) for setting in SETTINGS}
    paths = Paths("/e t", "/v")
    assert Settings.from_layers([Layer("template", found)], paths=paths) == Settings.from_layers([], paths=paths)


def test_template_explains_every_setting() -> None:
    words = " ".join(template("/etc", "/var").replace("\n# ", " ").split())
    for setting in SETTINGS:
        assert f"{setting.name} ({setting.kind.expected}): {setting.meaning} #{setting.name}=" in words


@pytest.mark.parametrize("path", written_files())
def test_files_are_as_the_table_says(path: str) -> None:
    found = (DEFINITION.parents[1] / path).read_text()
    assert found == written_files()[path], f"{path} is not what `python -m ganeti_os.settings.doc .` writes"


def test_files_can_be_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in written_files():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(sys, "argv", ["settings_doc", str(tmp_path)])
    write_files()
    assert {path: (tmp_path / path).read_text() for path in written_files()} == written_files()


def test_versions() -> None:
    assert (DEFINITION / "ganeti_api_version").read_text() == "".join(f"{version}\n" for version in API_VERSIONS)


def test_parameters_as_ganeti_reads_them() -> None:
    """It splits every line at its first blanks, and takes no comments and no empty lines."""
    lines = [line.split(None, 1) for line in (DEFINITION / "parameters.list").read_text().splitlines()]
    names = [name for name, meaning in lines if meaning]
    assert names == [setting.parameter for setting in PUBLISHED]
    assert {"image_name", "swap", "identity", "grow"} <= set(names)


def test_variants_as_ganeti_reads_them() -> None:
    assert (DEFINITION / "variants.list").read_text() == f"{DEFAULT_VARIANT}\n"


def test_the_page_names_every_setting() -> None:
    page = written_files()["docs/settings.md"]
    for name in (*BY_NAME, *WITHOUT_EFFECT):
        assert f"- `{name}`: " in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120


def test_settings_file_is_installed_once(tmp_path: Path) -> None:
    install = load("install_settings").install
    (tmp_path / "new").write_text("new")
    target = tmp_path / "etc" / "default" / "x"
    assert install(str(tmp_path / "new"), str(target))
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    target.write_text("edited")
    assert not install(str(tmp_path / "new"), str(target))
    assert target.read_text() == "edited"
    target.unlink()
    os.symlink("/nowhere", target)
    assert not install(str(tmp_path / "new"), str(target))
    assert os.listdir(target.parent) == ["x"]


def test_the_link_is_installed_once(tmp_path: Path) -> None:
    install_link = load("install_settings").install_link
    link = tmp_path / "os" / "image" / "variants.list"
    assert install_link("/etc/variants.list", str(link))
    assert os.readlink(link) == "/etc/variants.list"
    link.unlink()
    link.symlink_to("/nowhere")
    assert not install_link("/etc/variants.list", str(link))
    assert os.readlink(link) == "/nowhere"
    link.unlink()
    link.write_text("mine\n")
    assert not install_link("/etc/variants.list", str(link))
    assert link.read_text() == "mine\n"


@pytest.mark.parametrize(
    ("python", "part"),
    [
        ("python3", "is not a program"),
        ("/no/such/python", "is not a program"),
        ("{0}/with blank", "has blanks"),
        ("{0}/" + "x" * 120, "makes a first line of"),
    ],
)
def test_interpreters_that_cannot_stand_in_a_first_line(tmp_path: Path, python: str, part: str) -> None:
    path = python.format(tmp_path)
    if path.startswith(str(tmp_path)):
        os.symlink(sys.executable, path)
    with pytest.raises(SystemExit, match=f"-Dpython=: .*{part}"):
        load("check_options").check_python(path)
    load("check_options").check_python(for_first_line(tmp_path))


def test_a_checkout_with_blanks_has_an_interpreter_for_a_first_line(tmp_path: Path) -> None:
    environment = tmp_path / "a checkout/.venv"
    environment.parent.mkdir()
    environment.symlink_to(sys.prefix)
    python = for_first_line(tmp_path, environment / "bin" / Path(sys.executable).name)
    load("check_options").check_python(python)
    done = subprocess.run([python, "-c", "import pydiskimg"], cwd="/", capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("directory", ["relative", '/a"b', "/a'b", "/a\\b", "/a$b", "/a`b", "/a\nb"])
def test_directories_that_would_need_quoting(directory: str) -> None:
    with pytest.raises(SystemExit, match=r"-Dos-dir=: .*expected an absolute path"):
        load("check_options").check_directory("-Dos-dir=", directory)
    load("check_options").check_directory("-Dos-dir=", "/a b/ö")


def test_a_directory_is_made_once(tmp_path: Path) -> None:
    install_directory = load("install_settings").install_directory
    directory = tmp_path / "var" / "cache" / "images"
    assert install_directory(str(directory))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
    directory.chmod(0o700)
    assert not install_directory(str(directory))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    os.symlink("/nowhere", tmp_path / "link")
    assert not install_directory(str(tmp_path / "link"))
