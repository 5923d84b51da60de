# SPDX-License-Identifier: MIT
"""Messages: instance, step, few lines of progress, and the error last."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator

import pytest

from ganeti_os.log import Messages, ProgressLines
from pydiskimg.errors import DiskImageError

log = logging.getLogger("pydiskimg.test")


@pytest.fixture(autouse=True)
def _root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def messages(stream: io.StringIO) -> Messages:
    made = Messages(os_name="image", verb="create", instance="inst1.example")
    made.attach(stream=stream)
    return made


def test_lines_say_who_and_which_step(messages: Messages, stream: io.StringIO) -> None:
    log.info("begin")
    with messages.step("partitioning"):
        log.info("two\nlines")
        with messages.step("writing"):
            log.warning("x\x1b[2J\ty")
        log.debug("hidden")
    messages.set_debug(True)
    log.debug("shown")
    assert stream.getvalue().splitlines() == [
        "image create inst1.example: begin",
        "image create inst1.example: partitioning: two",
        "image create inst1.example: partitioning: lines",
        "image create inst1.example: writing: warning: x\\x1b[2J\ty",
        "image create inst1.example: shown",
    ]


def fail_in(messages: Messages, error: Exception) -> None:
    with pytest.raises(type(error)), messages.step("outer"), messages.step("inner"):
        raise error


@pytest.mark.parametrize("debug", [False, True])
def test_failure_is_the_last_line_and_keeps_its_step(messages: Messages, stream: io.StringIO, debug: bool) -> None:
    messages.set_debug(debug)
    error = DiskImageError("/dev/x:\n too  small")
    fail_in(messages, error)
    messages.failure(error)
    lines = stream.getvalue().splitlines()
    assert lines[-1] == r"image create inst1.example: inner: /dev/x:\n too small"
    assert ("Traceback" in stream.getvalue()) == debug
    assert all(line.startswith("image create inst1.example: ") for line in lines)


def test_an_error_that_was_handled_leaves_no_step(messages: Messages, stream: io.StringIO) -> None:
    fail_in(messages, DiskImageError("handled"))
    messages.failure(DiskImageError("other"))
    assert stream.getvalue() == "image create inst1.example: other\n"


def test_instance_is_named_when_known(stream: io.StringIO) -> None:
    messages = Messages(os_name="image", verb="create")
    messages.attach(stream=stream)
    log.info("a")
    messages.set_instance(os_name="other", verb="create", instance="i")
    log.info("b")
    assert stream.getvalue().splitlines() == ["image create: a", "other create i: b"]


def test_a_closed_stream_is_no_error(
    messages: Messages, stream: io.StringIO, capfd: pytest.CaptureFixture[str]
) -> None:
    stream.close()
    log.info("x")
    assert capfd.readouterr() == ("", "")


def test_standard_error_only(capfd: pytest.CaptureFixture[str]) -> None:
    Messages(os_name="image", verb="export").attach()
    log.info("x")
    assert capfd.readouterr() == ("", "image export: x\n")


def test_progress_says_a_line_each_ten_percent(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = ProgressLines("copying", clock=lambda: 0.0)
    for done in range(1001):
        progress(done << 20, 1000 << 20)
    progress(1000 << 20, 1000 << 20)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 10
    assert said[3] == "copying: 40 %, 400 MiB of 1000 MiB"
    assert said[-1].startswith("copying: 100 %")


def test_progress_says_a_line_each_ten_seconds(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now = 0.0
    progress = ProgressLines("copying", clock=lambda: now)
    for second in range(100):
        now = float(second)
        progress(second, 10_000)
    assert len(caplog.records) == 9


def test_progress_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    ProgressLines("copying")(0, 0)
    assert [record.getMessage() for record in caplog.records] == ["copying: 100 %, 0 bytes of 0 bytes"]
