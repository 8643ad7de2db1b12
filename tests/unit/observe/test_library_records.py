"""What libraries log goes where the mail log goes, one line each."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator

import pytest

from relaygw.observe.maillog import LibraryHandler, carry_library_records
from tests.logs import text_log


@pytest.fixture
def output() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, hook = list(root.handlers), threading.excepthook
    written = io.StringIO()
    carry_library_records(text_log(written))
    yield written
    logging.captureWarnings(False)
    root.handlers[:] = before
    threading.excepthook = hook


def line_of(output: io.StringIO) -> str:
    (line,) = output.getvalue().splitlines()
    return line


@pytest.mark.parametrize(
    ("logger", "daemon"),
    [
        ("relaygw.web", "web"),
        ("uvicorn.error", "web"),
        ("alembic.runtime.migration", "master"),
        ("asyncio", "asyncio"),
        ("Odd Name[1]: x", "odd-name-1-x"),
    ],
)
def test_a_record_is_a_line_of_its_daemon(output: io.StringIO, logger: str, daemon: str) -> None:
    logging.getLogger(logger).warning("the store does not answer: %s", "two\nlines")
    assert f" relaygw/{daemon}[" in line_of(output)
    assert line_of(output).endswith("]: warning: the store does not answer: two lines")


def test_what_is_only_of_interest_to_its_author_is_left_out(output: io.StringIO) -> None:
    logging.getLogger("alembic.runtime.migration").info("Running upgrade")
    assert output.getvalue() == ""


def test_an_exception_is_one_line_with_its_places(output: io.StringIO) -> None:
    try:
        {}["x\ny"]
    except KeyError:
        logging.getLogger("uvicorn.error").exception("Exception in ASGI application\n")
    assert "web[" in line_of(output)
    assert "]: error: Exception in ASGI application: KeyError: 'x\\ny' (at " in line_of(output)
    assert "observe/test_library_records.py:" in line_of(output)


def test_what_a_client_did_is_no_error(output: io.StringIO) -> None:
    logging.getLogger("uvicorn.error").error("ASGI callable returned without completing handshake.")
    assert output.getvalue() == ""


def test_a_thread_that_cannot_start_comes_with_the_remedy(output: io.StringIO) -> None:
    try:
        raise RuntimeError("can't start new thread")
    except RuntimeError:
        logging.getLogger("asyncio").exception("Task exception was never retrieved")
    assert line_of(output).endswith(
        "; the system allows no more threads: raise TasksMax of the service, pids of the "
        "container, or ulimit -u"
    )


def test_arguments_that_do_not_fit_cost_no_exception(output: io.StringIO) -> None:
    record = logging.LogRecord("other", logging.ERROR, "x.py", 1, "%d things", ("none",), None)
    LibraryHandler(text_log(output)).emit(record)
    assert line_of(output).endswith("error: %d things")


def test_another_log_takes_the_place_of_the_first(output: io.StringIO) -> None:
    other = io.StringIO()
    carry_library_records(text_log(other))
    logging.getLogger("asyncio").error("x")
    assert (output.getvalue(), len(other.getvalue().splitlines())) == ("", 1)


def test_warnings_and_threads_that_die_are_lines(output: io.StringIO) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(True)
        warnings.warn("old", DeprecationWarning, stacklevel=1)
    thread = threading.Thread(target=lambda: 1 / 0, name="committer")
    thread.start()
    thread.join()
    warned, died = output.getvalue().splitlines()
    assert "warning: " in warned
    assert "DeprecationWarning: old" in warned
    assert "error: a thread (committer) ended: ZeroDivisionError: division by zero" in died
