"""The command line of bench/mutate."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from bench.mutating.forks import ended, forked, scratch
from bench.mutating.plugin import Changed, Started
from bench.mutating.points import Mutant, find_mutants
from bench.mutating.room import PATIENCE_S, Room
from bench.rig.mta import ROOT
from tests import once

_ABOUT = """\
Changes the code of relaygw in one place at a time, as a slip would, and runs the tests that call
the changed function: one of them has to fail. Prints the share that was noticed, and every change
that was not. First all tests of a room are run once, to see what they call; those that fail as it
is are named and left out. What the quick ones of a room let pass comes before the slow ones. Only
tests in one process count, and on SQLite but for the store: those that start gateways would notice
more. Ends with 1 if less than 85 % were noticed.
"""
_ROUND_MAIL = tuple(
    f"unit/{room}" for room in ("mail", "policy", "upstream", "operations", "cli", "inbound")
)
_Stage = tuple[str, ...] | int
ROOMS: Mapping[str, tuple[tuple[str, ...], *tuple[_Stage, ...]]] = {
    "mail": (("mail",), (*_ROUND_MAIL, "contract")),
    "policy": (("policy",), ("unit/policy", "unit/delivery", "unit/inbound", "contract")),
    "store": (
        ("store",),
        (
            *(f"unit/{room}" for room in ("store", "operations", "delivery", "alerting")),
            *(f"integration/cli/test_cli_{name}.py" for name in ("backup", "setup")),
            "contract",
        ),
    ),
    "delivery": (("delivery",), ("unit/delivery",), 300, ("integration/test_*.py",)),
    "classifier": (("upstream/classifier.py", "upstream/brake.py"), ("unit/upstream",)),
}
"""Of each room its code below relaygw/, and what may notice, the quickest first.

That is tests below tests/, or a number of seeds of the simulation.
"""
_ON_BOTH = {"store"}  # what is sent to one database alone stands there
_ENOUGH, _NAMED_AT_MOST = 0.85, 30


def main(arguments: Sequence[str] | None = None) -> int:
    """Choose changes and run the tests for each; return the exit code."""
    parser = argparse.ArgumentParser(description=_ABOUT)
    parser.add_argument("--room", action="append", choices=sorted(ROOMS), help="default: all")
    parser.add_argument("--count", type=int, default=500, help="of changes, in all (default 500)")
    parser.add_argument("--seed", type=int, default=1, help="of the choice (default 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="of those chosen, as printed")
    parser.add_argument("--jobs", type=int, default=1, help="processes at work (default 1)")
    options = parser.parse_args(arguments)
    rooms = options.room or list(ROOMS)
    found = {room: _mutants(ROOMS[room][0]) for room in rooms}
    total = sum(map(len, found.values()))
    noticed = chosen = passed = 0
    for room in rooms:
        begin, passed = passed, passed + len(found[room])
        count = options.count * passed // total - options.count * begin // total
        mutants = random.Random(options.seed).sample(found[room], min(count, len(found[room])))
        mutants = [one for one in mutants if options.only in str(one)]
        left = _unnoticed(room, mutants, options.jobs)
        chosen += len(mutants)
        noticed += len(mutants) - len(left)
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


def _unnoticed(room: str, mutants: Sequence[Mutant], jobs: int) -> Sequence[Mutant]:
    """Return the changes that nothing notices; print each as soon as it is known."""
    _, *stages = ROOMS[room]
    noticed, total = 0, len(mutants)
    for number, stage in enumerate(stages, 1):
        if isinstance(stage, int):
            verdicts = _seed_verdicts(stage, mutants, jobs)
        else:
            verdicts = _verdicts(stage, mutants, room in _ON_BOTH, jobs)
        left = []
        for judged, (mutant, is_noticed) in enumerate(verdicts, 1):
            noticed += is_noticed
            if not is_noticed:
                left.append(mutant)
                if number == len(stages):
                    print(mutant, flush=True)
            where = f"{judged} of {len(mutants)} (stage {number} of {len(stages)})"
            sys.stderr.write(f"\r{room}: {noticed} of {total} noticed, judged {where} ")
        mutants = left
    return mutants


def _seed_verdicts(
    count: int, mutants: Sequence[Mutant], jobs: int
) -> Iterator[tuple[Mutant, bool]]:
    """Tell of each change whether one of so many seeds of the simulation is broken by it."""
    reading, writing = os.pipe()

    def run() -> int:
        from bench.simulation import clocks

        clocks.install()  # before anything of relaygw is bound to the clocks of this machine
        from bench.mutating.seeds import Judge

        judge = Judge.prepared(ROOT, count)
        with os.fdopen(writing, "w") as results:
            at_once = min(jobs, os.cpu_count() or 1)  # seeds wait for nothing
            for is_noticed in judge.verdicts(mutants, at_once) if judge else ():
                print(json.dumps(is_noticed), file=results, flush=True)
        return 0

    with scratch() as directory, os.fdopen(reading) as results:
        pid = forked(run, directory)
        os.close(writing)
        told = 0
        for told, line in enumerate(results, 1):
            yield mutants[told - 1], json.loads(line)
        ended(pid, PATIENCE_S)
    if told < len(mutants):
        raise SystemExit("a seed of the simulation is broken as it is")


def _verdicts(
    places: Sequence[str], mutants: Sequence[Mutant], is_on_both: bool, jobs: int
) -> Iterator[tuple[Mutant, bool]]:
    """Tell of each change whether it is noticed; this process imports nothing of relaygw."""
    paths = [str(path) for place in places for path in sorted((ROOT / "tests").glob(place))]
    reading, writing = os.pipe()

    def run() -> int:
        with os.fdopen(writing, "w") as results:
            where = () if is_on_both else ("-k", "not postgres")
            room = Room(ROOT, mutants, results, jobs)
            return _pytest([*paths, *where, "--timeout", str(5 * PATIENCE_S)], room)

    with scratch() as directory, os.fdopen(reading) as results:
        pid = forked(run, directory)
        os.close(writing)
        failed = json.loads(results.readline() or '{"fail": ["all: they cannot be collected"]}')
        for test in failed["fail"][:_NAMED_AT_MOST]:
            sys.stderr.write(f"fails as it is, left out: {test}\n")
        for mutant, line in zip(mutants, results, strict=False):
            told = json.loads(line)
            if told["noticed"] is None:
                told["noticed"] = _is_noticed_at_import(mutant, told["tests"])
            yield mutant, told["noticed"]
            mutants = mutants[1:]
        code = ended(pid, PATIENCE_S)
    if mutants:  # nothing was told of them
        said = f"pytest ended with {code}: nothing can be learnt by changing the rest"
        raise SystemExit(said)


def _is_noticed_at_import(mutant: Mutant, tests: Sequence[str]) -> bool:
    """Run tests with a change; they notice by failing where they do not without it."""
    left = list(tests)
    while left:
        is_failed, test = _outcome(left, Changed(ROOT, mutant))
        if not is_failed:
            return False
        if test not in left or not _outcome([test])[0]:
            return True
        left.remove(test)
    return False


def _outcome(tests: Sequence[str], *finders: Changed) -> tuple[bool, str]:
    """Run tests in a process that imports all; return whether one failed, and which was last."""

    def run() -> int:
        sys.meta_path[:0] = finders
        return _pytest(["-x", "--timeout", str(PATIENCE_S), *tests], started)

    with scratch() as directory:
        started = Started(directory / "test")
        return ended(forked(run, directory), 5 * PATIENCE_S) != 0, started.test()


def _pytest(arguments: Sequence[str], *plugins: object) -> int:
    # output is not caught: forks would share the files where it goes
    quiet = ("-q", "-s", "-p", "no:cacheprovider", "-m", "not campaign")
    code = pytest.main([*quiet, *arguments], plugins=list(plugins))
    shutil.rmtree(once.directory())  # a fork does nothing at its exit
    return int(code)
