# SPDX-License-Identifier: MIT
"""Prints the core metadata of the library, as a wheel has it, for programs that ask which packages are installed."""

import pathlib
import re
import sys
import tomllib

project = tomllib.loads(pathlib.Path("pyproject.toml").read_text("utf-8"))["project"]
version = re.search(r'^__version__ = "(.+)"$', pathlib.Path("pydiskimg/__init__.py").read_text("utf-8"), re.MULTILINE)
if version is None:
    sys.exit('pydiskimg/__init__.py: there is no line __version__ = "..."')
print("Metadata-Version: 2.1")
print(f"Name: {project['name']}")
print(f"Version: {version[1]}")
print(f"Summary: {project['description']}")
print(f"License: {project['license']}")
print(f"Requires-Python: {project['requires-python']}")
for requirement in project["dependencies"]:
    print(f"Requires-Dist: {requirement}")
