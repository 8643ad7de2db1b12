"""The command line of bench/simulate."""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from bench.checking.checker import check
from bench.history import in_order, to_line, write_history
from bench.rig.seeds import Chunk, chunks, spread
from bench.simulation import clocks, marks, seams
from bench.simulation.picture import picture
from bench.simulation.run import Result, Run
from bench.simulation.store import Queue
from bench.simulation.zoo import BUGS, planted

_ABOUT = """\
Runs delivery workers, a front and fake providers in one loop with virtual time; a seed decides
every interleaving, latency, loss, crash, clock step and reply. Nothing acknowledged may be lost,
nothing sent twice but out of a recorded doubt, no lease held twice, limits and staging must hold,
and once nothing goes wrong any more all mail comes to its end. Ends with 1 if any of it is not so.
"""
_CHUNK = 50
_TOLD = 10  # failing seeds
_ENOUGH = 2000  # seeds that have to reach every mark


class Found(NamedTuple):
    """What came of some seeds."""

    seeds: int
    broken: list[tuple[int, str]]
    virtual_s: float
    steps: int
    processor_s: float
    marks: Counter[str]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one seed, many, or the zoo; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.zoo is not None:
        return _zoo(options)
    if options.seed is not None:
        return _one(options)
    return _many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=_ABOUT)
    parser.add_argument("seed", type=int, nargs="?", help="one seed, with its story")
    parser.add_argument("--seeds", type=int, default=2000, metavar="N", help="so many (2000)")
    parser.add_argument("--from", type=int, default=0, metavar="SEED", dest="first")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default 1)")
    parser.add_argument("--bug", default="", choices=("", *BUGS), help="plant a bug")
    parser.add_argument(
        "--zoo", nargs="*", metavar="BUG", help="find each planted bug; print its first seed"
    )
    parser.add_argument("--history", type=Path, metavar="FILE", help="write the history of a seed")
    parser.add_argument("--picture", type=Path, metavar="FILE", help="write its page, with lanes")
    parser.add_argument("--marks", action="store_true", help="how many seeds reached each mark")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    return parser


# --- one seed


def _prepare() -> Queue:
    seams.close()
    gc.set_threshold(50_000)
    queue = Queue()
    Run(0, queue).result()  # what is made once is made before the first figure
    return queue


def _one(options: argparse.Namespace) -> int:
    queue = _prepare()
    with planted(options.bug):
        result = Run(options.seed, queue).result()
    if options.history is not None:
        write_history(options.history, result.events)
    if options.picture is not None:
        options.picture.write_text(picture(result), "utf-8")
    for line in story(result):
        print(line)
    return 1 if result.violations else 0


def story(result: Result) -> Iterator[str]:
    """Yield what happened, line by line."""
    yield f"seed {result.seed}: {result.scenario}"
    told = [(at.time, f"{at.process} {at.type} {at.f} {at.value or ''}") for at in result.events]
    told += [(at_ns, f"{process}: {text}") for at_ns, process, text in result.lines]
    told.sort(key=lambda one: one[0])
    for at_ns, text in told:
        yield f"{at_ns / 1e9 - 1000:10.4f} {text}"
    report = check(in_order(result.events))
    yield f"bench/check: {'nothing is wrong' if report.is_clean else report.verdict()}"
    yield f"digest {digest(result)}; {result.took_s:.1f} s in {result.steps} steps"
    for text in result.violations:
        yield f"BROKEN {text}"


def digest(result: Result) -> str:
    """Return what is the same for the same history and log."""
    whole = hashlib.sha256(b"".join(map(to_line, result.events)))
    whole.update(json.dumps(result.lines).encode())
    return whole.hexdigest()[:16]


# --- many


_queue: Queue | None = None


def _run_chunk(task: Chunk) -> Found:
    global _queue
    bug, first, count, stops = task
    if _queue is None:
        _queue = _prepare()
    broken, virtual_s, steps, reached = [], 0.0, 0, Counter[str]()
    begun_s = os.times()
    done = 0
    with planted(bug):
        for seed in range(first, first + count):
            result = Run(seed, _queue).result()
            done += 1
            virtual_s += result.took_s
            steps += result.steps
            reached.update(result.marks)
            if result.violations:
                broken.append((seed, result.violations[0]))
                if stops:
                    break
    gc.collect()
    ended_s = os.times()
    processor_s = ended_s.user + ended_s.system - begun_s.user - begun_s.system
    return Found(done, broken, virtual_s, steps, processor_s, reached)


def _many(options: argparse.Namespace) -> int:
    begun_s = clocks.real_s()
    all_found: list[Found] = []
    tasks = chunks(options.bug, options.first, options.seeds, each=_CHUNK, stops=False)
    for found in spread(options.jobs, _run_chunk, tasks):
        all_found.append(found)
        for seed, what in found.broken[:_TOLD]:
            print(f"BROKEN seed {seed}: {what}", flush=True)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{sum(one.seeds for one in all_found)} seeds ")
    broken = [one for found in all_found for one in found.broken]
    seeds = sum(one.seeds for one in all_found)
    figures: dict[str, Any] = {
        "seeds": seeds,
        "broken": len(broken),
        "virtual_hours": round(sum(one.virtual_s for one in all_found) / 3600, 1),
        "processor_s": round(sum(one.processor_s for one in all_found), 1),
        "elapsed_s": round(clocks.real_s() - begun_s, 1),
    }
    reached: Counter[str] = sum((one.marks for one in all_found), Counter())
    print(json.dumps(figures) if options.json else _words(figures))
    if options.marks:
        for label in sorted({*marks.LINES, *marks.CALLS}):
            print(f"{reached[label]:8} {label}")
    unreached = marks.missing(reached) if seeds >= _ENOUGH and not options.bug else []
    for label in unreached:
        print(f"NEVER REACHED: {label}")
    return 1 if broken or unreached else 0


def _words(figures: dict[str, Any]) -> str:
    each_ms = figures["processor_s"] / max(1, figures["seeds"]) * 1000
    return (
        f"{figures['seeds']} seeds, {figures['broken']} broken; {figures['virtual_hours']} virtual "
        f"hours in {figures['elapsed_s']} s, {each_ms:.1f} ms of a processor each"
    )


# --- the zoo


def _zoo(options: argparse.Namespace) -> int:
    """Find each bug, by the seed that found it before first; that seed is clean without it."""
    missed = 0
    for name in options.zoo or BUGS:
        bug = BUGS[name]
        tasks = chain(
            [Chunk(name, bug.seed, 1, stops=True)],
            chunks(name, options.first, options.seeds, each=_CHUNK, stops=True),
        )
        seeds, broken, is_clean = 0, None, False
        for found in map(_run_chunk, tasks):
            seeds += found.seeds
            if found.broken:
                broken = found.broken[0]
                is_clean = not _run_chunk(Chunk("", broken[0], 1, stops=True)).broken
                break
        missed += not is_clean
        end = f"found by seed {broken[0]}: {broken[1]}" if broken else "NOT FOUND"
        if broken and not is_clean:
            end += " (WITHOUT IT AS WELL)"
        print(f"{name:18} {bug.what}: {seeds} seeds, {end}", flush=True)
    return 1 if missed else 0
