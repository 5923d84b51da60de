# SPDX-License-Identifier: MIT
"""Stands in for qemu-img while an iotest runs: python qemu_img.py ARGUMENTS. Each call is a line of a log.

Environment: FOREIGN_LOG the log, FOREIGN_REAL the real qemu-img, FOREIGN_OURS 1 or 0 (whether pydiskimg takes what it
can), FOREIGN_ROOT where pydiskimg is, TEST_DIR below which images may name other files.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.foreign.routing import Call, routed

_JUDGE_SECONDS = 60  # for each call of the real qemu-img that looks at what was made
_FACTS = ("virtual-size", "format", "cluster-size", "backing-filename", "backing-filename-format")
_TAKES_REFERENCES = ("info", "convert", "map", "compare", "resize", "commit", "rebase", "measure", "amend", "dd")


def main(words: list[str]) -> int:
    call, ours = routed(words), os.environ["FOREIGN_OURS"] == "1"
    command = _ours(call, words) if call and ours else [os.environ["FOREIGN_REAL"], *words]
    environment = os.environ | {"PYTHONPATH": os.environ["FOREIGN_ROOT"]} if call and ours else None
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, check=False)
    sys.stderr.buffer.write(done.stderr)
    sys.stderr.flush()
    line: dict[str, Any] = {"words": words, "ours": call is not None, "status": done.returncode}
    line["error"] = done.stderr.decode(errors="replace")[-2000:]
    if call and done.returncode == 0 and call.target:
        line["made"] = _made(*call.target)
        if ours and _is_a_copy(call):
            line["data"] = _compared(call)
    with open(os.environ["FOREIGN_LOG"], "a") as log:
        log.write(json.dumps(line) + "\n")
    return done.returncode if done.returncode >= 0 else 128 - done.returncode


def _ours(call: Call, words: list[str]) -> list[str]:
    extra = ["--allow-references", os.environ["TEST_DIR"]] if call.command in _TAKES_REFERENCES else []
    # -P: the current directory is full of modules of QEMU's.
    return [sys.executable, "-P", "-m", "pydiskimg", words[0], *extra, *words[1:]]


def _real(*words: str) -> subprocess.CompletedProcess[str]:
    command = [os.environ["FOREIGN_REAL"], *words]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=_JUDGE_SECONDS)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", "took too long")


def _made(file: str, image_format: str) -> dict[str, Any]:
    """What the real qemu-img says of a file just written."""
    done = _real("info", "-U", "-f", image_format, "--output=json", file)
    if done.returncode:
        return {"error": done.stderr.strip()}
    info = json.loads(done.stdout)
    facts = {key: info[key] for key in _FACTS if key in info}
    facts |= info.get("format-specific", {}).get("data", {})
    if image_format == "qcow2":
        facts["check"] = _real("check", "-U", "-q", "-f", image_format, file).returncode
    return facts


def _is_a_copy(call: Call) -> bool:
    """Whether the call makes the target hold what one source does, readable or not."""
    odd = {"--image-opts", "--target-image-opts", "--salvage"} & call.options.keys()
    return call.command == "convert" and len(call.operands) == 2 and not odd


def _compared(call: Call) -> str:
    """Return "same", a sentence that says where source and target differ, or why they were not compared."""
    with tempfile.TemporaryDirectory() as work:
        source, named = call.operands[0], [f"-f{call.options['-f']}"] if "-f" in call.options else []
        if "-l" in call.options:
            picture = str(Path(work) / "snapshot")
            done = _real("convert", "-U", *named, "-l", call.options["-l"], "-O", "raw", source, picture)
            source, named = picture, ["-fraw"]
        target, image_format = call.operands[1], call.options.get("-O", "raw")
        done = _real("compare", "-U", *named, f"-F{image_format}", source, target)
        if done.returncode == 0:
            return "same"
        if done.returncode != 1:
            return f"not compared: {done.stderr.strip()}"
        return "same" if "-n" in call.options and _beyond(done.stdout, source, named) else f"differs: {done.stdout}"


def _beyond(said: str, source: str, named: list[str]) -> bool:
    """Whether the difference is behind the end of source: with -n a larger target keeps what it held there."""
    where, info = re.search(r"offset (\d+)", said), _real("info", "-U", *named, "--output=json", source)
    return bool(where and not info.returncode and int(where[1]) >= json.loads(info.stdout)["virtual-size"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
