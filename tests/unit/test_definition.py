# SPDX-License-Identifier: MIT
"""The files of the OS directory: the settings template says what the table says, and an edited one stays."""

from __future__ import annotations

import importlib.util
import os
import re
import stat
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ganeti_os.protocol import API_VERSIONS
from ganeti_os.settings import SETTINGS, Layer, Paths, Settings
from ganeti_os.shellfile import parse_shell_text

DEFINITION = Path(__file__).parents[2] / "ganeti_os" / "definition"


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
    assert found == {
        setting.name: setting.default.format(sysconfdir="/e t", localstatedir="/v") for setting in SETTINGS
    }
    paths = Paths("/e t", "/v")
    assert Settings.from_layers([Layer("template", found)], paths=paths) == Settings.from_layers([], paths=paths)


def test_template_explains_every_setting() -> None:
    words = " ".join(template("/etc", "/var").replace("\n# ", " ").split())
    for setting in SETTINGS:
        assert f"{setting.name} ({setting.expected}): {setting.meaning} #{setting.name}=" in words


def test_versions_and_parameters() -> None:
    assert (DEFINITION / "ganeti_api_version").read_text() == "".join(f"{version}\n" for version in API_VERSIONS)
    assert (DEFINITION / "parameters.list").read_text() == ""


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


@pytest.mark.parametrize(
    ("python", "part"),
    [
        ("python3", "is no program"),
        ("/no/such/python", "is no program"),
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
    load("check_options").check_python(sys.executable)


@pytest.mark.parametrize("directory", ["relative", '/a"b', "/a'b", "/a\\b", "/a$b", "/a`b", "/a\nb"])
def test_directories_that_would_need_quoting(directory: str) -> None:
    with pytest.raises(SystemExit, match=r"-Dos-dir=: .*expected an absolute path"):
        load("check_options").check_directory("-Dos-dir=", directory)
    load("check_options").check_directory("-Dos-dir=", "/a b/ö")
