# SPDX-License-Identifier: MIT
"""Check a qcow2 file: compare the references in its tables with its stored reference counts."""

from pydiskimg.images.qcow2.check.findings import CheckResult
from pydiskimg.images.qcow2.check.image import check_qcow2

__all__ = ["CheckResult", "check_qcow2"]
