"""What relaygw does for one plain message, counted and not timed.

A message goes in and out, and its outcome is recorded, before the next one comes. Each figure is
the least of some messages, so that what happens once a second is not in it.
"""

from __future__ import annotations

import argparse
import json
import smtplib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from bench import postgres_counts
from bench.counting_hook import COUNTS, FLAG, WRITE
from bench.rig import needs
from bench.rig.gateway import PATIENCE_S, Gateway, provider
from bench.rig.maillog import MailLog
from bench.rig.processor_time import command_of, tree
from bench.rig.sink import Sink

WARM_UP = 3
MESSAGES = 11
SIZES = (4096, 51200)
ROLES = {"relaygw-front": "front", "relaygw-deliver": "delivery"}
PACKAGE = str(Path(__file__).resolve().parents[1] / "relaygw")
_STATEMENTS = ("Cursor.execute", "Cursor.executemany", "Connection.execute")
_WRITE = ":Database.write"


@dataclass(frozen=True)
class Counts:
    """Of each message, by role: how often a function was called, "FILE:NAME" or the name in C.

    `written_bytes` is what a role writes to files and sockets (`wchar` of proc(5)).
    """

    calls: list[dict[str, Counter[str]]]
    written_bytes: dict[str, int]

    def figures(self) -> dict[str, int]:
        """Return what is counted of one message, by name."""
        counted: dict[str, Callable[[str], bool]] = {
            "calls of relaygw": lambda name: name.startswith(PACKAGE),
            "calls of all": lambda _: True,
            "statements": _STATEMENTS.__contains__,
            "write transactions": lambda name: name.endswith(_WRITE),
        }
        return {
            f"{role}: {what}": number
            for role in ROLES.values()
            for what, number in {
                **{
                    what: min(
                        sum(count for name, count in one[role].items() if is_counted(name))
                        for one in self.calls
                    )
                    for what, is_counted in counted.items()
                },
                "written bytes": self.written_bytes[role],
            }.items()
        }

    def modules(self) -> set[str]:
        """Return the modules of relaygw that run for each message, from connection to outcome."""
        ran = [{name.partition(":")[0] for by in one.values() for name in by} for one in self.calls]
        return {
            str(Path(file).relative_to(PACKAGE))
            for file in set.intersection(*ran)
            if file.startswith(PACKAGE)
        }

    def most_called(self, role: str, number: int) -> list[tuple[str, int]]:
        """Return the functions of a role that are called most for a message."""
        least = min((one[role] for one in self.calls), key=lambda one: sum(one.values()))
        return least.most_common(number)


def of_one_message(size_bytes: int) -> Counts:
    """Count what a gateway of its own does for a message of that size."""
    with tempfile.TemporaryDirectory() as name, Sink() as sink:
        directory = Path(name)
        (directory / FLAG).write_bytes(b"\0")
        gateway = Gateway(directory, providers={"p": provider(sink.port)})
        gateway.program = ("-m", "bench.counting_hook")
        with gateway, (directory / FLAG).open("r+b", buffering=0) as flag:
            log = MailLog(gateway.log_path)
            written: list[dict[str, int]] = []
            for number in range(1, WARM_UP + MESSAGES + 1):
                before = _written_bytes(gateway)
                _set(flag, max(0, number - WARM_UP))
                _pass_one(gateway, log, number, size_bytes)
                _set(flag, 0)
                written.append({r: n - before[r] for r, n in _written_bytes(gateway).items()})
            _set(flag, WRITE)
            found = _counts_of_roles(directory)
    calls = [
        {role: Counter(found[role].get(str(number), {})) for role in ROLES.values()}
        for number in range(1, MESSAGES + 1)
    ]
    return Counts(
        calls,
        {role: min(one[role] for one in written[WARM_UP:]) for role in ROLES.values()},
    )


def _set(flag: BinaryIO, number: int) -> None:
    flag.seek(0)
    flag.write(bytes([number]))


def _pass_one(gateway: Gateway, log: MailLog, total: int, size_bytes: int) -> None:
    line = "x" * 70 + "\r\n"
    content = f"Subject: order {total}\r\n\r\n{line * (size_bytes // len(line))}"
    with smtplib.SMTP("127.0.0.1", gateway.smtp_port, local_hostname="client.test") as client:
        client.sendmail("a@shop.test", [f"b{total}@cust.test"], content)
    log.wait_until_removed(total, patience_s=PATIENCE_S)


def _written_bytes(gateway: Gateway) -> dict[str, int]:
    found = {}
    for pid in tree(gateway.pid):
        if role := ROLES.get(command_of(pid)):
            fields = Path(f"/proc/{pid}/io").read_text().split()
            found[role] = int(fields[fields.index("wchar:") + 1])
    return found


def _counts_of_roles(directory: Path) -> dict[str, dict[str, dict[str, int]]]:
    """Return what the roles wrote; each does at the next thing that it does."""
    deadline_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline_s:
        told = [json.loads(path.read_text()) for path in directory.glob(f"{COUNTS}*")]
        found = {ROLES[one["role"]]: one["counts"] for one in told if one["role"] in ROLES}
        if len(found) == len(ROLES):
            return found
        time.sleep(0.05)
    raise TimeoutError(f"only {sorted(found)} told what they count")


def main() -> int:
    """Print the counts of messages of 4 and 50 KiB."""
    parser = argparse.ArgumentParser(
        prog="counts",
        description="Counts what relaygw does for one plain message: calls of functions, "
        "statements, write transactions and written bytes, of the front and of the worker.",
    )
    parser.add_argument("--top", type=int, default=0, metavar="N", help="name what is called most")
    parser.add_argument(
        "--postgres", action="store_true", help="what it costs a PostgreSQL server, instead"
    )
    asked = parser.parse_args()
    needs.find_programs()
    if reason := needs.missing_program("smtp-sink"):
        print(f"counts: {reason}", file=sys.stderr)
        return 2
    if asked.postgres:
        return postgres_counts.main()
    of_sizes = {size: of_one_message(size) for size in SIZES}
    print(f"{'of one message':32}" + "".join(f"{size // 1024:>8} KiB" for size in SIZES))
    for name in of_sizes[SIZES[0]].figures():
        row = "".join(f"{counts.figures()[name]:12}" for counts in of_sizes.values())
        print(f"{name:32}{row}")
    for role in ROLES.values() if asked.top else ():
        print(f"\n{role}, {SIZES[0] // 1024} KiB:")
        for name, count in of_sizes[SIZES[0]].most_called(role, asked.top):
            print(f"{count:6} {name.removeprefix(PACKAGE).rpartition('/site-packages/')[2]}")
    return 0
