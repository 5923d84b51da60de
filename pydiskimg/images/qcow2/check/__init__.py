# SPDX-License-Identifier: MIT
"""Checking a qcow2 file: the references that its tables make against the reference counts that it keeps."""

from pydiskimg.images.qcow2.check.findings import CheckResult
from pydiskimg.images.qcow2.check.image import check_qcow2

__all__ = ["CheckResult", "check_qcow2"]
