# SPDX-License-Identifier: MIT
"""The package's own names: imported when they are used, listed by dir(), and documented with an example that runs."""

from __future__ import annotations

import doctest
import inspect
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pydiskimg
from tests.fixtures.checkout import ROOT
from tests.fixtures.example_files import make_example_files

NAMES: list[str] = getattr(pydiskimg, "__all__")  # noqa: B009 - hidden from type checkers


@pytest.fixture(scope="module")
def example_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("examples")
    make_example_files(directory, tmp_path_factory.mktemp("scratch"))
    return directory


def test_every_name_is_there() -> None:
    assert {*NAMES, "__version__", "errors"} <= {*dir(pydiskimg)}
    for name in NAMES:
        assert callable(getattr(pydiskimg, name))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        getattr(pydiskimg, "nonsense")  # noqa: B009 - mypy refuses the name


def test_importing_the_package_is_cheap() -> None:
    code = "import sys, pydiskimg; print([name for name in sys.modules if name.startswith('pydiskimg.')])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "['pydiskimg.startup']\n"


def test_the_errors_are_a_module_too() -> None:
    code = "import pydiskimg; print(pydiskimg.errors.StorageError is pydiskimg.StorageError)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_help_lists_names_that_were_not_used_yet() -> None:
    code = "import pydiskimg; help(pydiskimg)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert [name for name in NAMES if f" {name}(" not in done.stdout] == []


@pytest.mark.parametrize("name", ["pydiskimg", *NAMES])
def test_examples(name: str, example_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    documented = pydiskimg if name == "pydiskimg" else getattr(pydiskimg, name)
    text = inspect.getdoc(documented)
    assert text
    for file in example_files.iterdir():
        if file.name in text:
            shutil.copy(file, tmp_path)
    example = doctest.DocTestParser().get_doctest(text, {}, name, None, None)
    assert example.examples, f"{name} has no example"
    report: list[str] = []
    doctest.DocTestRunner().run(example, out=report.append)
    assert not report, "".join(report)
