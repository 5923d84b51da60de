# SPDX-License-Identifier: MIT
# `make demo` and `make test` do all the set-up themselves; `make help` lists the rest.

PYTHON ?= /usr/bin/python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pip install --quiet --disable-pip-version-check
STAMP := $(VENV)/.installed
SHELL := /bin/bash
# The one list of Debian packages.
# At run time; pyparted is built from its source package and needs libparted-dev, pkg-config and a compiler.
RUN_PACKAGES := python3 python3-venv python3-dev gcc libc6-dev pkg-config libparted-dev libarchive13|libarchive13t64
# The demo's input comes from busybox, qemu-img and a kernel package that it unpacks and does not install.
DEMO_PACKAGES := busybox-static e2fsprogs fdisk qemu-utils tar xz-utils
# Oracles and peers of the tests.
TEST_PACKAGES := acl attr bmap-tools|bmaptool btrfs-progs bzip2 cryptsetup-bin dosfstools dropbear-bin dump exfatprogs f2fs-tools fish ganeti \
  ganeti-3.0|ganeti-3.1 gdisk gpg gpg-agent groff-base grub-pc-bin ifupdown iproute2 jfsutils libarchive-tools libcap2-bin \
  libnm0 lvm2 lz4 lzip man-db mandoc mmdebstrap mount mtools ncompress netplan.io nilfs-tools nodejs ntfs-3g openssh-client openssh-server \
  openssl parted passwd pigz procps qemu-system-x86 udev udftools util-linux xfsprogs zsh zstd
# Peers of the benchmarks, and what makes their inputs. virt-* are measured where there is a kernel in /boot.
BENCH_PACKAGES := bmap-tools|bmaptool dump e2fsprogs fdisk libguestfs-tools libnbd-bin mmdebstrap mount pigz qemu-utils tar \
  util-linux xfsprogs xz-utils zerofree zstd
# What builds and judges the Debian packages of this project.
DEB_PACKAGES := build-essential debhelper dh-python dpkg-dev lintian meson python3 python3-venv
# What unpacks the source packages whose tests and images `make foreign` takes.
FOREIGN_PACKAGES := dpkg-dev
# virt-*, and the kernel that its virtual machine starts.
VIRT_PACKAGES := libguestfs-tools linux-image-amd64

# Tests run side by side, a file in one process. Much of their time is waiting for disks, so two more than there are
# processors; a process is replaced when it ends unasked, and the test that it ran has failed.
WORKERS ?= $(shell echo $$(($$(nproc) + 2)))
SIDE_BY_SIDE := -n $(WORKERS) --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

# Modules are compiled once: each process that runs tests imports a thousand, and commands of ours start as often.
unexport PYTHONDONTWRITEBYTECODE

# Loop devices and mounts need root.
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

.DEFAULT_GOAL := help
.PHONY: help demo test lint unit docs readme compiled foreign virt bench bench-growth man completion deb packages-check clean \
  packages-run packages-demo packages-test packages-bench packages-foreign packages-virt packages-deb

help: ## list what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: packages-demo $(STAMP) ## install a small Debian onto two instances' disks and show the result
	@$(SUDO) $(PY) -m tests.demo

test: packages-test $(STAMP) ## install what the tests need and pass everything
	@$(MAKE) --no-print-directory -j2 lint compiled
	@$(SUDO) $(if $(SUDO),env CI=$(CI)) $(PY) -m pytest $(SIDE_BY_SIDE)

lint: $(STAMP) ## mypy --strict and ruff
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy

# mypy takes one processor; the other one imports all tests, so that every process that runs them finds them compiled.
compiled: $(STAMP)
	@$(SUDO) $(PY) -m pytest --collect-only -qq >/dev/null || true  # what is wrong, the run of the tests says

unit: $(STAMP) ## the fast tests that need no root and no other program
	@$(PY) -m pytest -q -m "not root and not oracle and not boot and not ganeti"

docs: $(STAMP) ## the documentation as a site in build/docs; warnings and broken links are errors
	@$(PY) -m sphinx -W --keep-going -q -b html -c docs . build/docs
	@echo "make: the site is build/docs/index.html"

readme: $(STAMP) ## run the commands of README.md again and replace their output
	@$(PY) -m tests.fixtures.readme_screen

virt: packages-virt $(STAMP) ## compare with virt-* themselves, minutes for each of their commands
	@$(SUDO) env VIRT=1 LIBGUESTFS_BACKEND=direct LIBGUESTFS_BACKEND_SETTINGS=force_tcg \
	  $(PY) -m pytest -q --timeout=1800 tests/root/test_virt_tasks.py

foreign: packages-foreign $(STAMP) ## run the tests and images of QEMU, e2fsprogs, libarchive and util-linux on us
	@$(SUDO) nice -n 10 $(PY) -m tests.foreign $(SUITES)

deb: packages-deb ## build the Debian packages into build/deb/
	@packaging/deb.sh build/deb
	@lintian --allow-root --fail-on error,warning build/deb/*.changes

packages-check: packages-test $(STAMP) ## build and install packages, sdist and wheel in fresh Debian 12 and 13; takes a while
	@$(PIP) "build>=1.0"
	@$(SUDO) $(PY) -m tests.packaging $(SUITES)

# ROWS="zlib-* cat" measures these rows only, ROUNDS=9 takes so many; make bench ROWS=--list prints the names.
bench: packages-bench $(STAMP) ## measure against the peers, in turns, and write benchmarks/results.md; hours
	@set -f; $(SUDO) $(PY) -m benchmarks $(if $(ROUNDS),--rounds $(ROUNDS)) $(ROWS)

bench-growth: packages-bench $(STAMP) ## measure how time and memory grow, and write benchmarks/growth.md
	@set -f; $(SUDO) $(PY) -m benchmarks.growth $(if $(ROUNDS),--rounds $(ROUNDS)) $(SERIES)

man: $(STAMP) ## write the man pages to build/man
	@$(PY) -m manual man build/man

completion: $(STAMP) ## write completion for bash, zsh and fish to build/completion
	@$(PY) -m manual completion build/completion

# Packages such as ganeti and its sshd ask this program whether they may start what they brought: they may not. One that
# the administrator has is left in place; ours goes when the recipe ends, however it ends.
POLICY := /usr/sbin/policy-rc.d
define NO_DAEMONS
if [ ! -e $(POLICY) ]; then \
  trap '$(SUDO) rm -f $(POLICY)' EXIT; \
  trap 'exit 1' HUP INT TERM; \
  printf '#!/bin/sh\nexit 101\n' | $(SUDO) install -m 0755 /dev/stdin $(POLICY) || exit 1; \
fi
endef

# install the packages of a set that are missing; a|b: either will do
packages-run: SET = $(RUN_PACKAGES)
packages-demo: SET = $(RUN_PACKAGES) $(DEMO_PACKAGES)
packages-test: SET = $(RUN_PACKAGES) $(DEMO_PACKAGES) $(TEST_PACKAGES)
packages-bench: SET = $(RUN_PACKAGES) $(BENCH_PACKAGES)
packages-foreign: SET = $(RUN_PACKAGES) $(DEMO_PACKAGES) $(TEST_PACKAGES) $(FOREIGN_PACKAGES)
packages-virt: SET = $(RUN_PACKAGES) $(DEMO_PACKAGES) $(TEST_PACKAGES) $(VIRT_PACKAGES)
packages-deb: SET = $(DEB_PACKAGES)
packages-run packages-demo packages-test packages-bench packages-foreign packages-virt packages-deb:
	@missing=""; \
	for entry in $(foreach p,$(SET),'$(p)'); do \
	  found=no; \
	  for name in $${entry//|/ }; do dpkg-query -W -f='$${Status}' $$name 2>/dev/null | grep -q 'ok installed' && found=yes; done; \
	  [ $$found = yes ] || missing="$$missing $$entry"; \
	done; \
	[ -n "$$missing" ] || exit 0; \
	echo "make: installing Debian packages:$$missing"; \
	$(SUDO) apt-get -qq -o DPkg::Lock::Timeout=600 update || exit 1; \
	names=""; \
	for entry in $$missing; do \
	  for name in $${entry//|/ }; do apt-cache show $$name >/dev/null 2>&1 && { names="$$names $$name"; break; }; done; \
	done; \
	$(NO_DAEMONS); \
	$(SUDO) env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 \
	  install -y --no-install-recommends $$names >/dev/null

# The environment, with everything that pyproject.toml asks for.
$(VENV)/.dependencies: pyproject.toml
	@$(MAKE) --no-print-directory packages-run
	@echo "make: creating $(VENV)/ with $(PYTHON) and installing the dependencies into it"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) "meson-python>=0.15" "meson>=1.0" ninja setuptools "shtab>=1.13" wheel
	@$(PIP) --no-build-isolation --use-pep517 '.[docs,fast,ganeti,test]'
	@$(PY) -m pip uninstall --quiet --yes setuptools wheel  # only building needs them, and each start of Python reads their .pth
	@touch $@

# The package itself, installed as a user installs it, and with it ganeti_os; tests run on the checkout.
$(STAMP): $(VENV)/.dependencies meson.build meson_options.txt pydiskimg/cli/launcher.in \
    $(shell find pydiskimg ganeti_os manual -name '*.py')
	@echo "make: installing pydiskimg into $(VENV)/"
	@$(PIP) --no-build-isolation --no-deps --force-reinstall --config-settings=setup-args=-Dganeti-os=true .
	@touch $@

# What demo, tests, bench and foreign leave is root's when they ran with sudo.
BUILT = $(VENV) build .bench .demo .foreign .packaging debian/building debian/bundled .mypy_cache .ruff_cache .pytest_cache .hypothesis $(shell find . -name __pycache__ -prune)
clean: ## remove what was built
	@rm -rf $(BUILT) 2>/dev/null || $(SUDO) rm -rf $(BUILT)
