"""The command line of bench/mutate."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest

from bench.mutating.plugin import Calls, Changed
from bench.mutating.points import Mutant, find_mutants
from bench.rig.mta import ROOT

_ABOUT = """\
Changes the code of relaygw in one place at a time, as a slip would, and runs the tests that call
the changed function: one of them has to fail. Prints the share that was noticed, and every change
that was not. First all tests of a room are run once, to see what they call. Only tests in this
process count, on SQLite: those that start gateways would notice more. Ends with 1 if less than
85 % were noticed.
"""
ROOMS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "mail": (("mail",), ("unit/mail", "unit/policy", "unit/upstream", "contract")),
    "policy": (("policy",), ("unit/policy", "unit/delivery", "unit/inbound", "contract")),
    "store": (("store",), ("unit/store", "contract", "integration/cli/test_cli_backup.py")),
    "delivery": (("delivery",), ("unit/delivery", "integration/test_*.py")),
    "classifier": (("upstream/classifier.py",), ("unit/upstream",)),
}
"""Of each room its code below relaygw/, and the tests that may notice, below tests/."""
_TESTS_AT_MOST, _FILES_AT_MOST = 40, 6
_PATIENCE_S = 120
_ENOUGH = 0.85


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose changes and run the tests for each; return the exit code."""
    parser = argparse.ArgumentParser(description=_ABOUT)
    parser.add_argument("--room", action="append", choices=sorted(ROOMS), help="default: all")
    parser.add_argument("--count", type=int, default=500, help="of changes, in all (default 500)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice (default 1)")
    options = parser.parse_args(arguments)
    rooms = options.room or list(ROOMS)
    found = {room: _mutants(ROOMS[room][0]) for room in rooms}
    total = sum(map(len, found.values()))
    noticed = chosen = 0
    survivors: list[str] = []
    for room in rooms:
        tests = _tests_by_function(ROOMS[room][1])
        count = max(1, options.count * len(found[room]) // total)
        for mutant in random.Random(options.seed).sample(found[room], min(count, len(found[room]))):
            chosen += 1
            if _is_noticed(mutant, tests.get(f"{mutant.path}:{mutant.function}", [])):
                noticed += 1
            else:
                survivors.append(str(mutant))
                print(mutant, flush=True)
            sys.stderr.write(f"\r{room}: {noticed} of {chosen} noticed ")
    share = noticed / max(1, chosen)
    sys.stderr.write("\n")
    print(f"seed {options.seed}: {noticed} of {chosen} changes were noticed, {share:.0%}")
    return 0 if share >= _ENOUGH else 1


def _mutants(places: Sequence[str]) -> list[Mutant]:
    """Return all changes of functions; what stands outside of them is data."""
    files: list[Path] = []
    for place in places:
        path = ROOT / "relaygw" / place
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return [
        mutant
        for file in files
        for mutant in find_mutants(str(file.relative_to(ROOT)), file.read_bytes())
        if mutant.function
    ]


def _tests_by_function(places: Sequence[str]) -> dict[str, list[str]]:
    """Return the tests that call each function, those that call little first."""
    paths = [str(path) for place in places for path in sorted((ROOT / "tests").glob(place))]
    reading, writing = os.pipe()

    def watch() -> int:
        calls = Calls(ROOT)
        code = _pytest([*paths, "--timeout", str(_PATIENCE_S)], calls)
        with os.fdopen(writing, "w") as pipe:
            json.dump({test: sorted(called) for test, called in calls.by_test.items()}, pipe)
        return code

    pid = _forked(watch)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        by_test: dict[str, list[str]] = json.loads(pipe.read() or "{}")
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise SystemExit("the tests fail as it is: nothing can be learnt by changing it")
    by_function: dict[str, list[str]] = defaultdict(list)
    for test, called in sorted(by_test.items(), key=lambda one: len(one[1])):
        for function in called:
            by_function[function].append(test)
    return by_function


def _is_noticed(mutant: Mutant, tests: Sequence[str]) -> bool:
    """Run tests with a change; they notice by failing, or by not coming to an end."""
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))[:_FILES_AT_MOST]
    # what is computed once is seen by the first test alone: the others of its file may notice, too
    chosen = (tests[:_TESTS_AT_MOST], files)
    return any(_fail(mutant, one) for one in chosen if one)


def _fail(mutant: Mutant, tests: Sequence[str]) -> bool:
    def run() -> int:
        sys.meta_path.insert(0, Changed(ROOT, mutant))
        return _pytest(["-x", "--timeout", str(_PATIENCE_S), *tests])

    pid = _forked(run)
    deadline_s = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline_s:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status) != 0
        time.sleep(0.05)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def _forked(work: Callable[[], int]) -> int:
    """Do work in a process of its own, with its children in its group, silently."""
    pid = os.fork()
    if pid:
        return pid
    os.setpgid(0, 0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    code = 1
    try:
        code = work()
    finally:
        os._exit(code)


def _pytest(arguments: Sequence[str], *plugins: object) -> int:
    quiet = ("-q", "-p", "no:cacheprovider", "-k", "not postgres", "-m", "not campaign")
    return int(pytest.main([*quiet, *arguments], plugins=list(plugins)))
