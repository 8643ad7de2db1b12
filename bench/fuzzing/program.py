"""The command line of bench/fuzz."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from bench.fuzzing import coverage
from bench.fuzzing.front import close_seams
from bench.fuzzing.queue import database
from bench.fuzzing.session import Result, run_seed
from bench.fuzzing.zoo import BUGS, planted
from bench.rig.seeds import Chunk, chunks, spread
from bench.simulation import clocks

_ABOUT = """\
Each seed is one SMTP session of a hostile client against the front, in this process: a walk
through commands, right and wrong, cut and sent ahead, given up at any byte. A model says what each
reply may be; what was answered with 250 has to be in the queue, once and whole, and nothing else.
With --target atheris makes up bytes for one parser. Ends with 1 if anything is not so.
"""
_CHUNK = 500
_TOLD = 10  # failing seeds
_EMPTIED_EACH = 200  # sessions


class Found(NamedTuple):
    """What came of some seeds."""

    sessions: int
    broken: list[Result]
    replies: int
    stored: int
    processor_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one seed, many, the zoo, or a target; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.target is not None:
        return coverage.run(options.target, options.seconds or 60)
    close_seams()
    gc.set_threshold(50_000)
    if options.short:
        return _short(options.sessions)
    if options.zoo is not None:
        return _zoo(options)
    if options.session is not None:
        return _one(options)
    return _many(options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=_ABOUT)
    parser.add_argument("session", type=int, nargs="?", metavar="SEED", help="one, with its story")
    parser.add_argument("--sessions", type=int, default=2000, metavar="N", help="so many (2000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="the first one (0)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="processes (1)")
    parser.add_argument("--bug", default="", choices=("", *BUGS), help="plant a bug")
    parser.add_argument("--zoo", nargs="*", metavar="BUG", help="find each planted bug")
    parser.add_argument("--target", metavar="NAME", help="fuzz one parser by atheris")
    parser.add_argument("--seconds", type=int, help="so long (a target: 60)")
    parser.add_argument(
        "--short",
        action="store_true",
        help="the sessions, the zoo, one twice, fixed inputs for each target",
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    return parser


# --- one seed


def _one(options: argparse.Namespace) -> int:
    with planted(options.bug):
        result = run_seed(options.session, database())
    print(f"seed {result.seed}: {result.profile}")
    for line in result.transcript:
        print(line)
    if result.broken:
        print(f"BROKEN {result.broken}")
    return 1 if result.broken else 0


# --- many


def _run_chunk(task: Chunk) -> Found:
    bug, first, count, stops = task
    here = database()
    broken: list[Result] = []
    done = replies = stored = 0
    begun_s = sum(os.times()[:2])
    with planted(bug):
        for seed in range(first, first + count):
            if done % _EMPTIED_EACH == 0:
                here.queue.empty()
            result = run_seed(seed, here)
            done += 1
            replies += result.replies
            stored += result.stored
            if result.broken:
                broken.append(result)
                if stops:
                    break
    if done == _CHUNK:
        gc.collect()
    return Found(done, broken, replies, stored, sum(os.times()[:2]) - begun_s)


def _many(options: argparse.Namespace) -> int:
    begun_s = clocks.real_s()
    all_found: list[Found] = []
    told = 0
    for found in spread(
        options.jobs,
        _run_chunk,
        chunks(options.bug, options.seed, options.sessions, each=_CHUNK, stops=False),
    ):
        all_found.append(found)
        for result in found.broken:
            told += 1
            if told <= _TOLD:
                print(f"BROKEN seed {result.seed} ({result.profile}): {result.broken}", flush=True)
        if sys.stderr.isatty():
            sys.stderr.write(f"\r{sum(one.sessions for one in all_found)} sessions ")
        if options.seconds and clocks.real_s() - begun_s > options.seconds:
            break
    figures = {
        "sessions": sum(one.sessions for one in all_found),
        "broken": sum(len(one.broken) for one in all_found),
        "replies": sum(one.replies for one in all_found),
        "stored": sum(one.stored for one in all_found),
        "processor_s": round(sum(one.processor_s for one in all_found), 1),
        "elapsed_s": round(clocks.real_s() - begun_s, 1),
    }
    print(json.dumps(figures) if options.json else _words(figures))
    return 1 if figures["broken"] else 0


def _words(figures: dict[str, float]) -> str:
    each_ms = figures["processor_s"] / max(1, figures["sessions"]) * 1000
    counted = "{sessions} sessions, {broken} broken; {replies} replies, {stored} messages"
    return (
        f"{counted.format(**figures)}, {figures['elapsed_s']} s, "
        f"{each_ms:.2f} ms of a processor each"
    )


# --- the zoo, and all in short


def _short(sessions: int) -> int:
    """Run a bit of everything; one session twice, behind others, which may not matter to it."""
    count = ["--sessions", str(sessions)]
    codes = [main(count), main(["--zoo", *count])]
    stories = []
    for _ in range(2):
        with planted("dots-kept"):
            result = run_seed(0, database())
        stories.append([*result.transcript, f"BROKEN {result.broken}"])
    print(*stories[0], sep="\n")
    is_same = stories[0] == stories[1]
    print("the same again" if is_same else "NOT THE SAME AGAIN")
    return max(*codes, coverage.run_fixed(), not is_same)


def _zoo(options: argparse.Namespace) -> int:
    """Find each bug; the seed that finds it is clean without it."""
    missed = 0
    for name in options.zoo or BUGS:
        sessions, broken = 0, None
        tasks = chain(
            [Chunk(name, BUGS[name].seed, 1, stops=True)],  # that has found it
            chunks(name, options.seed, options.sessions, each=_CHUNK, stops=True),
        )
        for found in map(_run_chunk, tasks):
            sessions += found.sessions
            if found.broken:
                broken = found.broken[0]
                break
        is_clean = (
            broken is not None and not _run_chunk(Chunk("", broken.seed, 1, stops=True)).broken
        )
        missed += not is_clean
        end = f"found by seed {broken.seed}: {broken.broken[:200]}" if broken else "NOT FOUND"
        if broken and not is_clean:
            end += " (WITHOUT IT AS WELL)"
        print(f"{name:18} {BUGS[name].what}: {sessions} sessions, {end}", flush=True)
    return 1 if missed else 0
