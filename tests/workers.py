"""Tests in several processes that share one collection: `pytest --workers 8`.

The tests are collected once, and the workers are forked then. A worker takes a file, runs it, and
takes the next one, so fixtures of a module are made once. Fixtures of the session are a worker's
own. What a worker reports is shown as if it had run here.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import traceback
from collections.abc import Sequence
from itertools import groupby, zip_longest
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any, NoReturn

import pytest

_FORK = get_context("fork")
_PR_SET_PDEATHSIG = 1
_PATIENCE_S = 30.0  # of an interrupted worker: it ends what its tests have started


class _Files:
    """The tests by file, and a pipe of the numbers of those files that nobody has begun."""

    def __init__(self, items: list[pytest.Item]) -> None:
        self.tests = [list(its) for _, its in groupby(items, key=lambda item: item.path)]
        self._numbers, write = os.pipe()
        with open(write, "wb") as pipe:
            pipe.write(b"".join(number.to_bytes(2) for number in range(len(self.tests))))

    def take(self) -> list[pytest.Item]:
        """Return the tests of a file that nobody else has; none when all have begun."""
        said = os.read(self._numbers, 2)  # one reader at a time has the pipe
        return self.tests[int.from_bytes(said)] if said else []


class _OtherFile:
    """Stands for a test of a file that is not chosen yet: what the session has made is kept."""

    def __init__(self, session: pytest.Session) -> None:
        self._session = session

    def listchain(self) -> list[pytest.Session]:
        """Return what the two tests share."""
        return [self._session]


class _Reporter:
    """Tells the process that shows results what a worker does."""

    def __init__(self, config: pytest.Config, results: Connection) -> None:
        self._config, self._results = config, results

    def pytest_runtest_logstart(self, nodeid: str, location: Any) -> None:
        self._results.send((nodeid, location))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        hook = self._config.hook
        self._results.send(hook.pytest_report_to_serializable(config=self._config, report=report))


class _Worker:
    """A forked process that runs tests, as the process that shows results sees it."""

    def __init__(
        self, session: pytest.Session, files: _Files, others: Sequence[Connection]
    ) -> None:
        self.results, theirs = _FORK.Pipe(duplex=False)
        self.test: tuple[str, Any] = ("", ("", None, ""))
        read_ends = [*others, self.results]
        self.process = _FORK.Process(target=_work, args=(session, files, theirs, read_ends))
        self.process.start()
        theirs.close()

    def end_of(self) -> pytest.TestReport | None:
        """Return what became of the test at hand if the process died of it."""
        self.process.join()
        if self.process.exitcode == 0:
            return None
        nodeid, location = self.test
        said = f"the process that ran it ended ({self.process.exitcode}); the rest of its file, too"
        return pytest.TestReport(nodeid, location, {}, "failed", said, "call")


def _work(
    session: pytest.Session, files: _Files, results: Connection, read_ends: Sequence[Connection]
) -> NoReturn:
    """Run tests until there are none; the process ends here."""
    code = 1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as at any start
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT)  # nobody reads what it tells
    for one in read_ends:
        one.close()
    try:
        _capture_anew(session.config)
        session.config.pluginmanager.register(_Reporter(session.config, results))
        while items := files.take():
            for item, following in zip_longest(items, items[1:], fillvalue=_OtherFile(session)):
                _run(session, item, following)
        session._setupstate.teardown_exact(None)
        code = 0
    except KeyboardInterrupt:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        os._exit(code)


def _capture_anew(config: pytest.Config) -> None:
    """Capture what tests write in files of this process; results go another way."""
    capture = config.pluginmanager.getplugin("capturemanager")
    assert capture is not None
    capture.stop_global_capturing()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    capture.start_global_capturing()


def _run(session: pytest.Session, item: pytest.Item, following: Any) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
    if session.shouldfail or session.shouldstop:
        raise KeyboardInterrupt


class Workers:
    """Plugin: runs the collected tests by so many workers."""

    def __init__(self, count: int) -> None:
        self._count = count

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        if session.config.option.collectonly or (session.testsfailed and not session.items):
            return None
        if session.testsfailed:
            raise session.Interrupted(f"{session.testsfailed} errors during collection")
        session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]  # of all
        files = _Files(session.items)
        count = min(self._count, len(files.tests))
        workers: dict[Connection, _Worker] = {}
        for _ in range(count):
            worker = _Worker(session, files, list(workers))
            workers[worker.results] = worker
        try:
            while workers:
                for results in wait(list(workers)):
                    assert isinstance(results, Connection)
                    if not _show(session, workers[results]):
                        del workers[results]
        finally:
            _end(workers.values())
        return True


def _show(session: pytest.Session, worker: _Worker) -> bool:
    """Show the next thing that a worker tells; False: it has ended."""
    hook = session.config.hook
    try:
        told = worker.results.recv()
    except EOFError:
        if (report := worker.end_of()) is not None:
            hook.pytest_runtest_logreport(report=report)
        return False
    if isinstance(told, tuple):
        worker.test = told
        return True
    report = hook.pytest_report_from_serializable(config=session.config, data=told)
    hook.pytest_runtest_logreport(report=report)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    return True


def _end(workers: Any) -> None:
    """End workers that were interrupted."""
    for worker in workers:
        os.kill(worker.process.pid, signal.SIGINT)
    for worker in workers:
        worker.process.join(_PATIENCE_S)
        worker.process.kill()
