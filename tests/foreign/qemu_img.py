# SPDX-License-Identifier: MIT
"""Stands in for qemu-img while an iotest runs: python qemu_img.py ARGUMENTS. Each call is a line of a log.

Environment: FOREIGN_LOG the log, FOREIGN_REAL the real qemu-img, FOREIGN_OURS 1 or 0 (whether pydiskimg takes what it
can), FOREIGN_THEIRS the log of the run in which qemu-img took all, FOREIGN_ROOT where pydiskimg is, TEST_DIR below
which images may name other files, SOCK_DIR a directory of this run.
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

from tests.foreign import streams
from tests.foreign.routing import Call, routed
from tests.foreign.streams import Pieces

_JUDGE_SECONDS = 60  # for each call of the real qemu-img that looks at what was made
_FACTS = ("virtual-size", "format", "cluster-size", "backing-filename", "backing-filename-format")
_TAKES_REFERENCES = ("info", "convert", "map", "compare", "resize", "commit", "rebase", "measure", "amend", "dd")


def main(words: list[str]) -> int:
    call, ours = routed(words), os.environ["FOREIGN_OURS"] == "1"
    command = _ours(call, words) if call and ours else [os.environ["FOREIGN_REAL"], *words]
    environment = os.environ | {"PYTHONPATH": os.environ["FOREIGN_ROOT"]} if call and ours else None
    status, said = streams.run(command, environment)
    line: dict[str, Any] = {"words": [_lasting(word) for word in words], "ours": call is not None, "status": status}
    with open(os.environ["FOREIGN_LOG"], "a+") as log:
        log.seek(0)
        theirs = _theirs(len(log.readlines()), line) if call and ours else None
        if theirs and words[0] == "map":
            said = _of_that_version(said, theirs)
        line["said"] = [[stream, _lasting(data.decode(errors="replace"))] for stream, data in said]
        if call and status == 0 and call.target:
            line["made"] = _made(*call.target)
            if ours and _is_a_copy(call):
                line["data"] = _compared(call)
        log.write(json.dumps(line) + "\n")
    # Its sentences are its own on purpose; with qemu-img's a test's output shows what else differs.
    streams.write(streams.with_errors(said, theirs) if theirs else said)
    return status if status >= 0 else 128 - status


def _lasting(text: str) -> str:
    """Return text without what is another one in each run: the process's number and the directory of sockets."""
    return text.replace(os.environ["SOCK_DIR"], "SOCK_DIR").replace(f"/{os.getppid()}-", "/PID-")


def _present(text: str) -> str:
    """The reverse of _lasting."""
    return text.replace("/PID-", f"/{os.getppid()}-").replace("SOCK_DIR", os.environ["SOCK_DIR"])


def _theirs(number: int, line: dict[str, Any]) -> Pieces | None:
    """Return what qemu-img said in call number of its own run, where that is the same call and ended alike."""
    with open(os.environ["FOREIGN_THEIRS"]) as log:
        lines = log.readlines()
    theirs = json.loads(lines[number]) if number < len(lines) else {}
    if (theirs.get("words"), theirs.get("status")) != (line["words"], line["status"]):
        return None
    return [(stream, _present(text).encode()) for stream, text in theirs["said"]]


def _of_that_version(said: Pieces, theirs: Pieces) -> Pieces:
    """Return what map said without the field that qemu-img has since 8.2, where theirs does not have it."""
    if any(b'"compressed": ' in data for _, data in theirs):
        return said
    return [(stream, re.sub(rb', "compressed": (?:true|false)', b"", data)) for stream, data in said]


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
    """Whether the difference is after the end of source: with -n a larger target keeps its contents there."""
    where, info = re.search(r"offset (\d+)", said), _real("info", "-U", *named, "--output=json", source)
    return bool(where and not info.returncode and int(where[1]) >= json.loads(info.stdout)["virtual-size"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
