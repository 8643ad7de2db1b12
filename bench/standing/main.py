"""`bench/alone`: runs cases and prints their figures beside the targets."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.rig import needs
from bench.rig.campaign import end_with_sigterm
from bench.rig.machine import describe
from bench.standing.all_feedback import all_feedback
from bench.standing.big_database import big_database
from bench.standing.crowds import idle_connections, slow_clients
from bench.standing.failover import failover, failover_silent
from bench.standing.fairness import fairness
from bench.standing.figure import Figure, Result
from bench.standing.find_mail import find_mail, find_mail_postgres
from bench.standing.fleet_limit import fleet_limit
from bench.standing.fleet_outage import fleet_outage
from bench.standing.fleet_restarts import fleet_restarts
from bench.standing.fleet_slow_reply import fleet_slow_reply
from bench.standing.fleet_takeover import fleet_takeover
from bench.standing.guard import guard
from bench.standing.idle import idle
from bench.standing.large import large
from bench.standing.latency import latency_delivering, latency_provider_down
from bench.standing.observing import observing
from bench.standing.one_address import one_address
from bench.standing.prices import prices
from bench.standing.processes import processes
from bench.standing.provider_events import provider_events
from bench.standing.queue_commands import queue_commands, queue_commands_postgres
from bench.standing.restart import restart
from bench.standing.rotation import rotation
from bench.standing.sandbox_list import sandbox_list, sandbox_list_postgres
from bench.standing.sendmail_delay import sendmail_to_provider
from bench.standing.setting import SMALL, Setting, Size
from bench.standing.throttle import throttle
from bench.standing.webhooks import webhooks

CASES: dict[str, Callable[[Setting], Result]] = {
    "latency-delivering": latency_delivering,
    "latency-provider-down": latency_provider_down,
    "provider-events": provider_events,
    "big-database": big_database,
    "restart": restart,
    "fairness": fairness,
    "large": large,
    "idle": idle,
    "sendmail-to-provider": sendmail_to_provider,
    "throttle": throttle,
    "failover": failover,
    "failover-silent": failover_silent,
    "rotation": rotation,
    "idle-connections": idle_connections,
    "slow-clients": slow_clients,
    "fleet-limit": fleet_limit,
    "fleet-takeover": fleet_takeover,
    "fleet-slow-reply": fleet_slow_reply,
    "fleet-restarts": fleet_restarts,
    "fleet-outage": fleet_outage,
    "sandbox-list": sandbox_list,
    "sandbox-list-postgres": sandbox_list_postgres,
    "find-mail": find_mail,
    "find-mail-postgres": find_mail_postgres,
    "observing": observing,
    "webhooks": webhooks,
    "all-feedback": all_feedback,
    "guard": guard,
    "one-address": one_address,
    "prices": prices,
    "processes": processes,
    "queue-commands": queue_commands,
    "queue-commands-postgres": queue_commands_postgres,
}
_SIZES: dict[str, tuple[type, str]] = {
    "idle_s": (float, "how long idle watches; 60"),
    "throttle_s": (float, "how long throttle measures; 180"),
    "throttle_per_s": (float, "messages a second that its provider allows; 50"),
    "throttle_connections": (int, "connections that its provider allows; 5"),
}
"""Options that change a size of the same name."""


def main() -> int:
    """Run what is asked for; return 1 if a figure misses what it must at least be."""
    options = _parse()
    if options.list:
        _print_cases()
        return 0
    needs.find_programs()
    end_with_sigterm()
    chosen = list(CASES) if "all" in options.case else options.case
    size = _size(options)
    with tempfile.TemporaryDirectory(prefix="relaygw-bench-", dir=options.directory) as root:
        setting = Setting(Path(root), size, options.keep)
        setting.say(f"machine: {describe(setting.root)}")
        results = {}
        for name in chosen:
            setting.say(f"case {name}")
            results[name] = _run(name, setting)
        machine = describe(setting.root)
    _print_results(results, machine)
    return int(any(not result.is_good for result in results.values()))


def _run(name: str, setting: Setting) -> Result:
    """Return a case's result; one that breaks has no figures and costs the others nothing."""
    before, _, _ = os.getloadavg()
    try:
        result = CASES[name](setting)
    except Exception as error:
        traceback.print_exc()
        return Result([], [f"FAILED: {type(error).__name__}: {error}"[:76]])
    # the load before tells whether others were using the machine
    result.notes.append(f"load average: {before:.1f} before, {os.getloadavg()[0]:.1f} after")
    return result


def _size(options: argparse.Namespace) -> Size:
    asked = {name: getattr(options, name) for name in _SIZES}
    given = {name: value for name, value in asked.items() if value is not None}
    return replace(SMALL if options.small else Size(), **given)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench/alone",
        description="Measures relaygw on its own: latency of a transaction, throughput with a "
        "big database, a restart with a long queue, fairness between streams, memory and "
        "latency under very large messages, what it costs without mail, how long mail of the "
        "sendmail command takes to the provider, and what it makes of providers with limits, that "
        "die, or that change the key, of crowds of clients that are idle or slow, and of instances "
        "that share a PostgreSQL database while they come and die and it restarts. "
        "Needs Postfix's smtp-source and smtp-sink, for fleets Debian's postgresql. "
        "Everything runs on loopback.",
    )
    parser.add_argument(
        "--case",
        action="append",
        choices=[*CASES, "all"],
        help="what to measure; may be given several times; all by default",
    )
    parser.add_argument("--list", action="store_true", help="tell what each case measures")
    parser.add_argument("--small", action="store_true", help="little of everything, to try it")
    for name, (kind, text) in _SIZES.items():
        option = f"--{name.replace('_', '-')}"
        parser.add_argument(option, type=kind, metavar="N", help=text)
    parser.add_argument("--keep", type=Path, metavar="DIRECTORY", help="copy logs there")
    parser.add_argument(
        "--directory", type=Path, help="where queues lie; the system's temporary directory"
    )
    options = parser.parse_args()
    options.case = options.case or ["all"]
    return options


def _print_cases() -> None:
    for name, case in CASES.items():
        print(f"{name:23}{(case.__doc__ or '').strip()}")


def _print_results(results: dict[str, Result], machine: str) -> None:
    print(machine)
    print(time.strftime("%Y-%m-%d %H:%M:%S"), shlex.join(["bench/alone", *sys.argv[1:]]))
    print(f"\n{'figure':42} {'value':>9} {'at least':>9} {'aim':>7}  reached")
    for name, result in results.items():
        print(f"{name}")
        for figure in result.figures:
            print(_row(figure))
        for note in result.notes:
            print(f"    {note}")


def _row(figure: Figure) -> str:
    value = f"{figure.value:.4g} {figure.unit}".strip()
    at_least = "" if figure.at_least is None else f"{figure.at_least:g}"
    aim = "" if figure.aim is None else f"{figure.aim:g}"
    return f"  {figure.name:40} {value:>9} {at_least:>9} {aim:>7}  {figure.verdict}"
