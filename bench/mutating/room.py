"""In pytest: runs collected tests again and again, each time in a fork with a change."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO

import pytest

from bench.mutating.forks import ended, forked, scratch, shared_out
from bench.mutating.patch import Functions, loaded_functions
from bench.mutating.plugin import Calls, Started
from bench.mutating.points import Mutant

PATIENCE_S = 120
_UNPATCHED = 99
_FAIL_AS_IT_IS_AT_MOST = 0.02
_TESTS_AT_MOST, _FILES_AT_MOST, _SECONDS_AT_MOST = 60, 6, 90.0


class Room:
    """Plugin: instead of the tests once, runs for each change those that call what it changes.

    Writes a line of JSON for each: `noticed`, null where the change takes an import, and the
    `tests` that may notice. Before these one with the tests that `fail` as it is: they are left
    out.
    """

    def __init__(
        self, root: Path, mutants: Sequence[Mutant], results: IO[str], jobs: int = 1
    ) -> None:
        self._root = root
        self._mutants = mutants
        self._results = results
        self._jobs = jobs
        self._is_fork = False
        self._tests: dict[str, pytest.Item] = {}
        self._usual_s: dict[str, float] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run tests with changes; in a fork, pytest runs those that it is left with."""
        if self._is_fork or session.testsfailed:
            return None
        self._tests = {item.nodeid: item for item in session.items}
        calls = self._calls(session)
        self._tell({"fail": sorted(calls.failed)})
        if len(calls.failed) > _FAIL_AS_IT_IS_AT_MOST * len(self._tests):
            return True
        self._usual_s = calls.seconds
        for name, seconds in calls.seconds.items():
            limit = pytest.mark.timeout(10 + 5 * seconds)
            self._tests[name].add_marker(limit, append=False)
        functions = Functions(self._root, loaded_functions())
        by_function = _by_function(calls)

        def judge(mutant: Mutant) -> Mapping[str, object]:
            calling = by_function.get(f"{mutant.path}:{mutant.function}", [])
            tests = self._chosen(by_subject(mutant.path, calling))
            noticed = self._is_noticed(session, tests, partial(functions.change, mutant))
            return {"noticed": noticed, "tests": tests}

        for told in shared_out(self._jobs, judge, self._mutants, PATIENCE_S):
            self._tell(told)
        return True

    def _tell(self, what: Mapping[str, object]) -> None:
        print(json.dumps(what), file=self._results, flush=True)

    def _calls(self, session: pytest.Session) -> Calls:
        """Run all tests; return what they call, without those that fail."""
        calls = Calls(self._root)
        tests = list(self._tests)

        def run(number: int) -> str:
            session.config.pluginmanager.register(own := Calls(self._root))
            try:
                self._run(session, tests[number :: self._jobs])
            finally:
                own.save(directory / str(number))
            return ""

        with scratch() as directory:
            for _ in shared_out(self._jobs, run, range(self._jobs), 100 * PATIENCE_S):
                pass
            for saved in directory.iterdir():
                calls.load(saved)
        calls.failed |= self._tests.keys() - calls.seconds.keys()  # or were not run
        return calls

    def _chosen(self, tests: Sequence[str]) -> list[str]:
        """Return those that take little, and the others of their files.

        What is computed once is seen by the first test alone: the others may notice, too.
        """
        here = [one for one in tests if not _is_on_postgres(one)]
        there = [one for one in tests if _is_on_postgres(one)]
        files = list(dict.fromkeys(map(_file_of, here)))[:_FILES_AT_MOST]
        others = (one for one in self._usual_s if _file_of(one) in files)
        chosen = [*here[:_TESTS_AT_MOST], *(one for one in others if not _is_on_postgres(one))]
        return [*self._short(dict.fromkeys(chosen)), *self._short(there[:_TESTS_AT_MOST])]

    def _short(self, tests: Iterable[str]) -> Iterator[str]:
        """Yield the first tests, as many as take a minute together."""
        left_s = _SECONDS_AT_MOST
        for test in tests:
            left_s -= self._usual_s[test]
            if left_s < 0:
                return
            yield test

    def _is_noticed(
        self, session: pytest.Session, tests: Sequence[str], change: Callable[[], bool]
    ) -> bool | None:
        """Run tests with a change; None: it takes an import."""
        left = list(tests)
        while left:
            code, test = self._outcome(session, left, change)
            if code in (0, _UNPATCHED):
                return False if code == 0 else None
            if test not in left or self._is_failed_by(session, test, change):
                return True
            left.remove(test)  # a test that fails without the change, too, says nothing
        return False

    def _is_failed_by(self, session: pytest.Session, test: str, change: Callable[[], bool]) -> bool:
        """Return whether a test that failed passes without the change, and fails with it again."""
        as_it_is = self._outcome(session, [test], lambda: True)[0]
        return as_it_is == 0 and self._outcome(session, [test], change)[0] != 0

    def _outcome(
        self, session: pytest.Session, tests: Sequence[str], change: Callable[[], bool]
    ) -> tuple[int, str]:
        """Return the exit code, and the test that was begun last."""

        def run() -> int:
            if not change():
                return _UNPATCHED
            session.config.option.maxfail = 1
            session.config.pluginmanager.register(started)
            return self._run(session, tests)

        with scratch() as directory:
            started = Started(directory / "test")
            patience_s = PATIENCE_S + 10 * sum(self._usual_s[one] for one in tests)
            return ended(forked(run, directory), patience_s), started.test()

    def _run(self, session: pytest.Session, tests: Sequence[str]) -> int:
        self._is_fork = True
        session.items[:] = [self._tests[one] for one in tests]
        with contextlib.suppress(session.Failed):  # at the first that does
            session.config.hook.pytest_runtestloop(session=session)
        session._setupstate.teardown_exact(None)  # servers of the session, too
        return 1 if session.testsfailed else 0


def by_subject(path: str, tests: Sequence[str]) -> list[str]:
    """Return tests in another order: those about a module first, then one of each file by turns.

    About it are files with its name, and then those of its room below tests/unit. What all tests
    call, as the store's file, is else seen by those that look at least.
    """
    name, room = Path(path).stem, Path(path).parent.name
    turns: Counter[str] = Counter()

    def place(test: str) -> tuple[bool, bool, int]:
        file = _file_of(test)
        turns[file] += 1
        return name not in Path(file).stem, f"unit/{room}/" not in file, turns[file]

    return sorted(tests, key=place)


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def _by_function(calls: Calls) -> dict[str, list[str]]:
    """Return the tests that call each function, those that call little in a short time first."""

    def effort(test: str) -> float:
        return len(calls.by_test[test]) * (0.1 + calls.seconds[test])

    by_function: dict[str, list[str]] = defaultdict(list)
    for test in sorted(calls.by_test, key=effort):
        for function in calls.by_test[test]:
            by_function[function].append(test)
    return by_function


def _is_on_postgres(test: str) -> bool:
    return "postgres" in test  # a server starts first
