#!/bin/bash
# SPDX-License-Identifier: MIT
# Builds the Debian packages of this checkout: deb.sh DIRECTORY, which gets the packages and is emptied
# before. Wheels of known hashes are fetched first: debian/building.txt has those that building needs, debian/bundled.txt
# those for pydiskimg-bundled, which is made on a Debian that has no python3-isal.
set -euo pipefail
umask 022

checkout=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1"
target=$(cd "$1" && pwd)
rm -rf "${target:?}"/*
version=$(dpkg-parsechangelog -l "$checkout/debian/changelog" -S Version)
source=$target/source/pydiskimg-$version
mkdir -p "$source"

# The files of the project, without build results; a source distribution has no other files.
cd "$checkout"
if [ -e .git ]; then git ls-files -z --cached --others --exclude-standard; else find . -type f -print0; fi |
  tar --create --null --files-from=- | tar --extract --directory="$source"

cd "$source"
download() { # wheels of a list with hashes
  "$target/pip/bin/pip" download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --require-hashes \
    --dest "$2" --requirement "$1"
}
python3 -m venv "$target/pip"
download debian/building.txt debian/building
profiles=
if ! apt-cache show python3-isal >/dev/null 2>&1; then
  download debian/bundled.txt debian/bundled
  profiles=pkg.pydiskimg.bundled
fi
rm -r "$target/pip"
DEB_BUILD_PROFILES=$profiles DEB_BUILD_OPTIONS=nocheck dpkg-buildpackage --no-sign --build=binary >"$target/build.log" 2>&1 ||
  { tail -30 "$target/build.log" >&2; echo "packaging/deb.sh: the build failed; $target/build.log has the rest" >&2; exit 1; }
mv "$target/source"/*.{deb,changes,buildinfo} "$target"
rm -r "$target/source"
ls "$target"/*.deb
