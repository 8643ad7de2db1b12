"""The faults: each begins, is seen to begin, lasts, ends, and is seen to end.

A fault that is not seen within a minute raises TimeoutError.
"""

from __future__ import annotations

import email.utils
import os
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.fleet_faults.later import LATER, PROGRAM, upgrade
from bench.fleet_faults.plans import GATEWAYS, Plan
from bench.fleet_faults.rig import Rig
from bench.killing.queue_view import view_of
from bench.killing.sink_watch import wait_until
from bench.rig.gateway import Gateway

_WHO = "campaign"
_SECONDS = {"+1h": 3600, "-1h": -3600}
_CLOCK_S = 300  # two clocks that differ by less are equal
_REGISTERED = "SELECT incarnation FROM instance WHERE name = '{}' AND role = 'delivery'"
_SCHEMA = "SELECT version_num FROM alembic_version"


def inflict(rig: Rig, plan: Plan) -> None:
    """Do the fault of a plan, from beginning to end; raises TimeoutError if it is not seen."""
    _FAULTS[plan.kind](rig, plan)


def _kill(rig: Rig, plan: Plan) -> None:
    gateway = rig.gateways[plan.target]
    pids, worker = gateway.pids(), _worker(rig, gateway)
    rig.history.invoke(_WHO, "kill", role="all")
    gateway.kill_all()
    wait_until(lambda: not any(_state(pid) for pid in pids), "all to die")
    rig.history.info(_WHO, "kill", open=view_of(gateway).open_ids())
    _hold(rig, plan, gateway, worker)
    _start(rig, plan.target)
    _wait_for_another(rig, gateway, worker)


def _stop(rig: Rig, plan: Plan) -> None:
    gateway = rig.gateways[plan.target]
    worker = _worker(rig, gateway)
    if plan.way == "cleanly":
        gateway.stop()
        wait_until(lambda: not _incarnations(rig, gateway), "its worker to say goodbye")
        time.sleep(plan.hold_s)
        _start(rig, plan.target)
        _wait_for_another(rig, gateway, worker)
        return
    pids = gateway.pids("delivery" if plan.way == "worker frozen" else "")
    _signal(pids, signal.SIGSTOP)
    try:
        wait_until(lambda: all(_state(pid) == "T" for pid in pids), "all to be stopped")
        _hold(rig, plan, gateway, worker)
    finally:
        rig.mend(plan.target)
        _signal(pids, signal.SIGCONT)
    wait_until(lambda: all(_state(pid) != "T" for pid in pids), "all to go on")
    if plan.is_long:
        _wait_for_another(rig, gateway, worker)


def _cut(rig: Rig, plan: Plan) -> None:
    gateway = rig.gateways[plan.target]
    worker = _worker(rig, gateway)
    for line in rig.lines:
        if plan.way == "closed":
            line.hold()
        else:
            line.silence()
    try:
        wait_until(lambda: _readiness(gateway) == 503, "a gateway that is not ready")
        _hold(rig, plan, gateway, worker)
    finally:
        rig.mend(plan.target)
        for line in rig.lines:
            line.release()
    wait_until(lambda: _readiness(gateway) == 200, "a gateway that is ready")


def _restart(rig: Rig, plan: Plan) -> None:
    primary = rig.pair.primary
    before = primary.postmaster_started()
    primary.restart(immediately=plan.way == "immediate", away_s=plan.hold_s)
    rig.mend(*range(GATEWAYS))
    if primary.postmaster_started() == before:
        raise TimeoutError("the database was not restarted")
    wait_until(rig.pair.is_followed, "a standby that follows again")


def _fail_over(rig: Rig, plan: Plan) -> None:
    rig.pair.primary.kill()
    if rig.pair.primary.answers():
        raise TimeoutError("the primary answers though it was killed")
    time.sleep(plan.hold_s)
    rig.mend(*range(GATEWAYS))
    rig.pair.standby.promote()
    if rig.ask("SELECT pg_is_in_recovery(), inet_server_port()") != [
        ["f", str(rig.pair.standby.port)]
    ]:
        raise TimeoutError("the standby takes no writes")


def _clock(rig: Rig, plan: Plan) -> None:
    """It is wrong from the start, and right once the gateway is started again."""
    gateway, wrong_s = rig.gateways[plan.target], _SECONDS[plan.way]
    worker = _worker(rig, gateway)
    wait_until(lambda: abs(_ahead_s(gateway) - wrong_s) < _CLOCK_S, "a clock that is wrong")
    time.sleep(plan.hold_s)
    gateway.stop()
    gateway.more_environment = {}
    _start(rig, plan.target)
    _wait_for_another(rig, gateway, worker)
    wait_until(lambda: abs(_ahead_s(gateway)) < _CLOCK_S, "a clock that is right")


def _upgrade(rig: Rig, plan: Plan) -> None:
    """The schema of a later version comes under gateways of this one; then these, one by one."""
    upgrade(rig.pair.primary.url_of(rig.database))
    if rig.ask(_SCHEMA) != [[LATER]]:
        raise TimeoutError("the schema is not the later one")
    rig.wait_for_more(2)  # of gateways of this version
    for number in (plan.target, (plan.target + 1) % GATEWAYS):
        gateway = rig.gateways[number]
        worker = _worker(rig, gateway)
        gateway.stop()
        gateway.program = PROGRAM
        time.sleep(plan.hold_s / GATEWAYS)
        _start(rig, number)
        _wait_for_another(rig, gateway, worker)


def _start(rig: Rig, number: int) -> None:
    rig.mend(number)
    rig.gateways[number].start()


def _hold(rig: Rig, plan: Plan, gateway: Gateway, worker: str) -> None:
    """Let a fault last; the others have buried the worker when it has outlasted the lease."""
    time.sleep(plan.hold_s)
    if plan.is_long:
        wait_until(lambda: worker not in _incarnations(rig, gateway), "a worker to be buried")


def _worker(rig: Rig, gateway: Gateway) -> str:
    """Return the incarnation of a gateway's worker, once it is registered."""
    wait_until(lambda: len(_incarnations(rig, gateway)) == 1, "a worker that is registered")
    return _incarnations(rig, gateway)[0]


def _wait_for_another(rig: Rig, gateway: Gateway, worker: str) -> None:
    def is_there() -> bool:
        found = _incarnations(rig, gateway)
        return len(found) == 1 and worker not in found

    wait_until(is_there, "another worker of a gateway")


def _incarnations(rig: Rig, gateway: Gateway) -> list[str]:
    time.sleep(0.05)  # each question is a process
    return [name for (name,) in rig.ask(_REGISTERED.format(gateway.settings["hostname"]))]


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def _state(pid: int) -> str:
    """Return the letter of a process' state; empty when it is gone, or waits to be reaped."""
    try:
        letter = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if letter in "ZX" else letter


def _readiness(gateway: Gateway) -> int:
    """Return the status of /readyz; 0 where nobody answers."""
    return _get(gateway, "readyz")[0]


def _ahead_s(gateway: Gateway) -> float:
    """Return how far the clock of a gateway is ahead, as its pages tell; infinite: no answer."""
    told = _get(gateway, "healthz")[1]
    return email.utils.parsedate_to_datetime(told).timestamp() - time.time() if told else 1e9


def _get(gateway: Gateway, page: str) -> tuple[int, str]:
    url = f"http://{gateway.settings['web']['bind']}/{page}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.headers["Date"]
    except urllib.error.HTTPError as error:
        return error.code, error.headers["Date"]
    except OSError:
        return 0, ""


_FAULTS: Mapping[str, Callable[[Rig, Plan], None]] = {
    "kill": _kill,
    "stop": _stop,
    "cut": _cut,
    "restart": _restart,
    "failover": _fail_over,
    "clock": _clock,
    "upgrade": _upgrade,
}
