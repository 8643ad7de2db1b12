"""relaygw against Postfix on one machine, in turn, with Postfix's own test programs.

Both run with their defaults, logs and syncs on, and deliver while they accept. smtp-source
hands messages over, smtp-sink counts what comes out. accept: messages over the time smtp-source
takes. end-to-end: messages over the time until the sink has the last one. backlog: messages over
the time from the release of a full queue until the sink has the last one. sendmail: the time
of one call of each one's command, as PHP makes it. Exit code 1: mail was
lost, came twice or was deferred, or a log has an error; a missed target is only told.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.rig import machine, needs
from bench.rig.campaign import end_with_sigterm
from bench.rig.cases import SETUPS, Case, Setup, case_names, chosen
from bench.rig.contestants import contestants
from bench.rig.mta import load_adapter
from bench.rig.postfix import Postfix
from bench.rig.progress import say
from bench.rig.rounds import PROCESSOR_MS, RoundFailed, Speeds, run_round, warm_up
from bench.rig.table import Outcome, Pair, case_lines, processor_lines, summary

_FAILED = "FAILED"


def main() -> int:
    """Run the chosen cases; return 1 if one failed, 2 if none can run here."""
    arguments = _arguments()
    if arguments.list:
        print(
            "\n".join(f"{case.name:<26}{setup.about}" for setup in SETUPS for case in setup.cases)
        )
        return 0
    needs.find_programs()
    if reason := needs.what_is_missing(arguments.directory):
        print(f"versus_postfix: {reason}", file=sys.stderr)
        return 2
    end_with_sigterm()
    names = case_names() if "all" in arguments.case else arguments.case
    header = f"{time.strftime('%Y-%m-%d %H:%M')}  {shlex.join(sys.argv)}"
    print(f"{header}\n{machine.describe(arguments.directory)}")
    outcomes: list[tuple[Case, Outcome]] = []
    for setup, cases in chosen(names):
        if not issubclass(arguments.against, Postfix) and (setup.over_tls or setup.is_command):
            continue
        outcome = _run(setup, cases, arguments)
        outcomes += [(case, outcome) for case in cases]
    print("\n" + "\n".join(summary(outcomes, arguments.against.name)))
    return 1 if any(outcome == _FAILED for _, outcome in outcomes) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--case",
        action="append",
        choices=[*case_names(), "all"],
        metavar="NAME",
        help="a case to run, may be repeated (default all)",
    )
    parser.add_argument("--list", action="store_true", help="list the cases")
    parser.add_argument("--rounds", type=int, help="of each (default 5, backlogs 3, sendmail 50)")
    parser.add_argument("--messages", type=int, help="of each round (default: the case's own)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("/var/tmp"),
        help="where both keep their queues, on a real disk (default /var/tmp)",
    )
    parser.add_argument(
        "--against",
        type=load_adapter,
        default=Postfix,
        metavar="FILE.py:CLASS",
        help="another server than Postfix, by an adapter (bench/rig/mta.py); cases without TLS",
    )
    arguments = parser.parse_args()
    arguments.case = arguments.case or ["all"]
    return arguments


def _run(setup: Setup, cases: Sequence[Case], arguments: argparse.Namespace) -> Outcome:
    messages = arguments.messages or setup.messages
    print(f"\n== {', '.join(case.name for case in cases)}: {messages} messages a round")
    print(f"   {setup.about}", flush=True)
    before = machine.sync_times(arguments.directory)
    try:
        pairs = _pairs(setup, messages, arguments)
    except (RoundFailed, RuntimeError) as failure:
        print(f"FAILED: {failure}", flush=True)
        return _FAILED
    after = machine.sync_times(arguments.directory)
    for case in cases:
        print("\n".join(case_lines(case, pairs, arguments.against.name)))
    print("\n".join(processor_lines(pairs, arguments.against.name)))
    print(f"sync of 4 KiB: before {before}; after {after}", flush=True)
    return pairs


def _pairs(setup: Setup, messages: int, arguments: argparse.Namespace) -> list[Pair]:
    pairs: list[Pair] = []
    with tempfile.TemporaryDirectory(prefix="versus-postfix-", dir=arguments.directory) as place:
        Path(place).chmod(0o755)  # Postfix works as another user
        with contestants(setup, Path(place), arguments.against) as both:
            for contestant in both:
                say(f"{contestant.name} warms up")
                warm_up(contestant, setup)
            for number in range(1, (arguments.rounds or setup.rounds) + 1):
                speeds: dict[str, Speeds] = {}
                for contestant in both if number % 2 else reversed(both):
                    speeds[contestant.name] = speed = run_round(contestant, setup, messages)
                    told = ", ".join(
                        f"{what} {value:.1f}"
                        for what, value in speed.items()
                        if not what.startswith(PROCESSOR_MS)
                    )
                    say(f"round {number} {contestant.name}: {told}")
                pairs.append((speeds[both[0].name], speeds[both[1].name]))
    return pairs
