"""The foreground process of `relaygw serve`: starts the roles, restarts the dead, reloads.

TERM or INT drains and ends; HUP reads the configuration again: a broken one changes
nothing and says so, a good one starts a new generation of roles while the old one
finishes what it is doing. USR1 opens the log again, in every role, for logrotate. systemd is told
of all of that.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from relaygw import state_owner
from relaygw.errors import NewerSchema, QueueDamaged, RelaygwError, SettingsError, StoreUnavailable
from relaygw.mail.clock import clock_ms
from relaygw.observe.hang import HangFile
from relaygw.observe.maillog import MailLog, carry_library_records, open_log
from relaygw.observe.metrics import open_run_files
from relaygw.observe.readings import Readings
from relaygw.observe.reload import note_refused_reload, note_settings_in_force
from relaygw.roles import heap, note_settings, prepare_schema, share_of_connections
from relaygw.roles.children import Child, HangWatch, Restarts
from relaygw.roles.demand import Demand, is_on_demand
from relaygw.roles.process import ROLES, Handover, RoleContext, preload, run_role
from relaygw.roles.signals import Signals
from relaygw.roles.sockets import ListeningSockets
from relaygw.roles.systemd import ServiceManager, handed_sockets
from relaygw.service_file import RunningGateway, hold_running_entry, hold_service_file, user_name
from relaygw.settings.certificates import unusable_certificates
from relaygw.settings.in_force import check_sandbox_is_meant, keep_settings
from relaygw.settings.load import DEFAULT_FILE, LoadedSettings, load_settings
from relaygw.settings.model import Settings
from relaygw.settings.section import Mode

if TYPE_CHECKING:
    from _typeshed import HasFileno

DRAIN_S = 30.0
HANDOVER_S = 5.0
"""How long a reload waits until what the old settings send has named its recipients."""
_UNHEALED: dict[int, type[RelaygwError]] = {
    os.EX_DATAERR: QueueDamaged,
    os.EX_CONFIG: NewerSchema,
}
"""What another start would not mend, by the exit code of the child that prepares the queue."""
_LOG_PATIENCE_S = 1.0  # log lines that could not go out are tried again after this


class _ToldToStop(RelaygwError):
    """TERM or INT came before the queue was prepared."""


class Supervisor:
    """Keeps the roles of one configuration running."""

    def __init__(
        self, loaded: LoadedSettings, *, config: Path | None, roles: Sequence[str]
    ) -> None:
        self._loaded = loaded
        self._config = config
        self._roles = roles
        self._log = _open_log(loaded.settings)
        self._sockets = ListeningSockets(roles, handed=handed_sockets(os.environ))
        self._manager = ServiceManager(os.environ)
        self._children: dict[int, Child] = {}
        self._generation = 0
        self._restarts = Restarts()
        self._demand = Demand()  # for the web role, where it is on demand
        self._is_stopping = False
        self._connections = 0  # of each role, to PostgreSQL; told once the queue is prepared
        self._began_at_ms = clock_ms()
        self._form_key = secrets.token_bytes(32)
        self._entry: Path | None = None
        self._signals = Signals()
        self._handover = Handover()
        self._hang_file = HangFile(loaded.state_dir)
        self._hangs = HangWatch(
            after_s=self._manager.alive_each_s,
            tell=lambda line: self._log.note("master", line),
            file=self._hang_file,
        )
        self._alive_read, self._alive_write = os.pipe2(os.O_CLOEXEC)

    def run(self) -> int:
        """Run until TERM or INT; return the exit code."""
        os.umask(0o077)  # mail is nobody else's business
        hold_service_file(self._loaded.state_dir)
        self._hang_file.start()
        self._note_in_force()
        self._metrics = open_run_files(self._loaded.state_dir, self._log)
        self._readings = Readings(
            self._loaded.state_dir, tell=lambda line: self._log.note("master", line)
        )
        self._signals.catch()
        self._manager.status("prepares the queue")
        try:
            self._prepare_schema(self._loaded)
        except _ToldToStop:
            return self._end()
        self._sockets.open(self._loaded.settings)
        # what nobody may want for days takes no memory
        preload(
            [role for role in self._roles if not self._is_on_demand(role)], self._loaded.settings
        )
        heap.share()
        self._start_generation()
        self._note_settings("start")
        self._register()
        self._announce()
        deadline_s = float("inf")
        while self._children or not self._is_stopping:
            for number in self._wait_for_signals(self._doors()):
                if number in (signal.SIGTERM, signal.SIGINT):
                    deadline_s = self._stop_children()
                elif number == signal.SIGHUP and not self._is_stopping:
                    self._reload()
                elif number == signal.SIGUSR1:
                    self._log.channel.reopen()
                    self._signal_all(number)
            if not self._end_hung():
                self._manager.alive()
            self._readings.settle()
            self._log.channel.pump()
            self._reap()
            self._restart_due()
            if time.monotonic() > deadline_s:
                self._signal_all(signal.SIGKILL)
        if self._entry is not None:
            with state_owner.as_caller():
                self._entry.unlink(missing_ok=True)
        return self._end()

    def _register(self) -> None:
        """Tell the commands of this host which gateway this is."""
        loaded = self._loaded
        running = RunningGateway(
            pid=os.getpid(),
            user=user_name(os.geteuid()),
            config=str(loaded.files[0].absolute()) if loaded.files else "",
            queue=loaded.settings.queue.url,
            state_dir=str(loaded.state_dir),
            mode=loaded.settings.mode.value,
        )
        with state_owner.as_caller():
            self._entry = hold_running_entry(running, os.environ)

    def _end(self) -> int:
        self._log.note("master", "stopped")
        self._log.channel.close()
        return 0

    # --- signals -------------------------------------------------------------------------

    def _wait_for_signals(self, doors: Sequence[HasFileno] = ()) -> list[int]:
        """Return the signals that came; the web role starts when somebody is at its doors."""
        longest_s = 1.0 if self._is_stopping else self._hangs.each_s
        timeout_s = min(self._restarts.next_s - time.monotonic(), longest_s)
        if self._log.channel.is_waiting:
            timeout_s = min(timeout_s, _LOG_PATIENCE_S)
        watched: list[HasFileno] = [self._signals, *doors]
        ready, _, _ = select.select(watched, [], [], max(0.0, timeout_s))
        if set(ready) & set(doors):
            why = "mail is to be made findable" if self._demand in ready else "somebody connects"
            self._log.note("master", f"web starts: {why}")
            self._demand.meet()
            self._start("web")
        return self._signals.take() if self._signals in ready else []

    def _signal_all(self, number: int) -> None:
        for pid in self._children:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def _stop_children(self) -> float:
        self._is_stopping = True
        self._manager.stopping()
        self._restarts.clear()
        self._sockets.close()
        self._signal_all(signal.SIGTERM)
        return time.monotonic() + DRAIN_S

    def _end_hung(self) -> bool:
        """End roles that hang, unless systemd will; True: its watchdog shall hear nothing."""
        if self._is_stopping:
            return False  # it ends soon, by KILL if need be
        return self._hangs.end_overdue(
            self._children.values(),
            time.monotonic(),
            generation=self._generation,
            is_spared=self._manager.has_watchdog,  # systemd restarts all of it at about that time
        )

    # --- children ------------------------------------------------------------------------

    def _start_generation(self) -> None:
        # older mail may be to be read for the field of a link
        is_wanted = self._runs("web") or self._loaded.settings.web.link_header is not None
        self._generation += 1
        processes = self._loaded.settings.processes
        counts = {"front": processes.front, "delivery": processes.delivery, "web": 1}
        for role in self._roles:
            if is_wanted or not self._is_on_demand(role):
                for _ in range(counts[role]):
                    self._start(role)

    def _is_on_demand(self, role: str) -> bool:
        return role == "web" and is_on_demand(self._roles, self._loaded.settings)

    def _runs(self, role: str) -> bool:
        """Return whether a role of this generation runs, or is about to."""
        now = [
            child.role for child in self._children.values() if child.generation == self._generation
        ]
        return role in now or self._restarts.is_planned(role)

    def _doors(self) -> Sequence[HasFileno]:
        """Return where to wait for those who want the web role while it does not run."""
        if "web" not in self._roles or self._is_stopping or self._runs("web"):
            return ()
        return (self._demand, *self._sockets.of("web", self._loaded.settings))

    def _start(self, role: str) -> None:
        used = {child.slot for child in self._children.values()}
        slot = next(number for number in count() if number not in used)
        self._hangs.beat_of(slot).note(0.0)
        child = Child(role, 0, self._generation, time.monotonic(), slot)
        try:
            child.pid = self._signals.fork()
        except OSError as error:  # a limit of processes or memory: the others go on
            pause_s = self._restarts.plan(child, time.monotonic())
            what = f"error: {role} cannot be started ({error.strerror}); again in {pause_s:g} s"
            self._log.note("master", what)
            return
        if child.pid == 0:
            self._be_child(role, slot)
        self._children[child.pid] = child

    def _be_child(self, role: str, slot: int) -> None:
        """Become a role; never returns."""
        exit_code = os.EX_SOFTWARE
        state_owner.forget_caller()
        self._log.channel.adopt()
        try:
            os.close(self._alive_write)
            context = RoleContext(
                loaded=self._loaded,
                sockets=self._sockets.keep_only(role, self._loaded.settings),
                lifeline=self._alive_read,
                handover=self._handover,
                log=self._log,
                beat=self._hangs.beat_of(slot),
                readings=self._readings.of(slot),
                metrics=self._metrics.directory if self._metrics is not None else None,
                demand=self._demand if self._is_on_demand("web") else None,
                roles=self._roles,
                connections=self._connections,
                began_at_ms=self._began_at_ms,
                form_key=self._form_key,
            )
            exit_code = run_role(role, context)
        except RelaygwError as error:
            self._log.note("master", f"fatal: {role}: {error}")
        except BaseException as error:
            self._log.note("master", f"fatal: {role}: {type(error).__name__}: {error}")
        finally:
            self._log.channel.close()
            os._exit(exit_code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            child = self._children.pop(pid, None)
            if self._metrics is not None:
                self._metrics.end(pid)
            if child is None:
                continue
            self._hangs.forget(child)
            exit_code = os.waitstatus_to_exitcode(status)
            who = f"{child.role} (pid {child.pid})"
            self._readings.end(child.slot, who, has_died=exit_code != 0)
            if self._is_stopping or child.generation != self._generation:
                continue
            if exit_code != 0 or not self._is_on_demand(child.role):
                self._plan_restart(child, exit_code)
            else:
                self._demand.meet()  # who still wants it says so again

    def _plan_restart(self, child: Child, exit_code: int) -> None:
        how = f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"
        pause_s = self._restarts.plan(child, time.monotonic())
        self._log.note(
            "master",
            f"warning: {child.role} (pid {child.pid}) ended with {how}; restarting it in "
            f"{pause_s:g} s",
        )

    def _restart_due(self) -> None:
        for ended in self._restarts.take(time.monotonic()):
            if ended.generation == self._generation:
                self._start(ended.role)

    # --- reload --------------------------------------------------------------------------

    def _reload(self) -> None:
        """Start a new generation with the settings of now, and retire the old one."""
        self._manager.reloading()
        try:
            with state_owner.as_caller():
                loaded = load_settings(config=self._config, environ=os.environ)
            check_sandbox_is_meant(loaded)
            if loaded.settings.queue.url != self._loaded.settings.queue.url:
                raise RelaygwError("queue.url cannot change by a reload; restart instead")
            # the front that runs may have one that could be read then
            if problems := [*unusable_certificates(loaded.settings)]:
                raise SettingsError("\n".join(problems))
            self._prepare_schema(loaded)
            self._sockets.open(loaded.settings)
        except (RelaygwError, OSError) as error:
            # what the refused settings opened
            self._sockets.close_unused(self._loaded.settings)
            reasons = str(error).splitlines()
            for line in reasons:
                self._log.note("master", f"error: reload refused, the old settings stay: {line}")
            note_refused_reload(self._loaded.state_dir, reasons[0])
            self._manager.ready(f"reload refused, the old settings stay: {reasons[0]}")
            return
        old = list(self._children.values())
        self._loaded = loaded
        self._log.channel.close()
        self._log = _open_log(loaded.settings)
        self._restarts.clear()
        self._sockets.close_unused(loaded.settings)
        self._start_generation()
        for child in old:
            number = signal.SIGUSR2 if child.role == "front" else signal.SIGTERM
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, number)
        for child in self._wait_for_handover(old):
            what = f"{child.role} (pid {child.pid}) has not ended what it does by the old settings"
            self._log.note("master", f"warning: {what}; until it ends, it may send by them")
        self._note_in_force()
        self._register()
        self._note_settings("reload")
        self._log.note("master", f"reloaded: mode {loaded.settings.mode}")
        self._manager.ready(f"serves, mode {loaded.settings.mode}")

    def _note_in_force(self) -> None:
        note_settings_in_force(self._loaded.state_dir)
        keep_settings(self._loaded)

    def _wait_for_handover(self, old: Sequence[Child]) -> list[Child]:
        """Return the workers of before that do not say in time that they begin nothing more."""
        waiting = {child.pid: child for child in old if child.role == "delivery"}
        deadline_s = time.monotonic() + HANDOVER_S
        kept: set[int] = set()
        while waiting and time.monotonic() < deadline_s and signal.SIGTERM not in kept:
            watched: list[HasFileno] = [self._signals, self._handover]
            ready, _, _ = select.select(watched, [], [], _LOG_PATIENCE_S)
            if self._signals in ready:
                kept |= set(self._signals.take()) - {signal.SIGCHLD}
            begin_nothing = self._handover.take()
            self._reap()
            running = self._children.keys() - begin_nothing
            waiting = {pid: child for pid, child in waiting.items() if pid in running}
            self._manager.alive()
            self._log.channel.pump()
        self._signals.put_back(kept)
        return list(waiting.values())

    # --- start ---------------------------------------------------------------------------

    def _prepare_schema(self, loaded: LoadedSettings) -> None:
        """Make, upgrade or check the queue, in a child: alembic's memory goes with it.

        It tells how many connections to PostgreSQL each role may open.
        """
        heard, told = os.pipe()

        def prepare() -> None:
            if prepare_schema(loaded):
                self._log.note(
                    "master", f"{loaded.settings.queue.url}: was empty, and now holds a queue"
                )
            connections, shortage = share_of_connections(loaded)
            if shortage is not None:
                self._log.note("master", f"warning: {shortage}")
            os.write(told, bytes([connections]))

        with os.fdopen(heard, "rb") as share, os.fdopen(told, "wb") as ours:
            pid = self._fork(prepare, complaint="fatal: the queue cannot be prepared")
            exit_code = self._wait_for_child(pid)
            if exit_code != 0:
                kind = _UNHEALED.get(exit_code, StoreUnavailable)
                raise kind("the queue could not be prepared, see the line above")
            ours.close()
            (self._connections,) = share.read()

    def _wait_for_child(self, pid: int) -> int:
        """Return the exit code of a child; TERM ends it, and all signals wait until then."""
        kept: set[int] = set()
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            kept |= set(self._wait_for_signals()) - {signal.SIGCHLD}
            if kept & {signal.SIGTERM, signal.SIGINT}:
                os.kill(pid, signal.SIGKILL)  # it has our handlers, which do nothing
            self._manager.alive()
            self._log.channel.pump()
        self._signals.put_back(kept)
        if kept & {signal.SIGTERM, signal.SIGINT}:
            raise _ToldToStop("told to stop")
        return os.waitstatus_to_exitcode(ended[1])

    def _note_settings(self, occasion: str) -> None:
        """Record what settings are in force now, in a child that nobody waits for."""
        noting = partial(note_settings, self._loaded, occasion=occasion)
        complaint = "warning: the settings are not in the audit trail"
        try:
            self._fork(noting, complaint=complaint)
        except OSError as error:
            self._log.note("master", f"{complaint}: {error.strerror}")

    def _fork(self, work: Callable[[], object], *, complaint: str) -> int:
        """Do what needs the store in a child; return its process id."""
        pid = os.fork()
        if pid == 0:
            self._log.channel.adopt()
            exit_code = os.EX_UNAVAILABLE
            try:
                work()
                exit_code = 0
            except BaseException as error:
                kinds = (code for code, kind in _UNHEALED.items() if isinstance(error, kind))
                exit_code = next(kinds, exit_code)
                self._log.note("master", f"{complaint}: {error}")
            finally:
                self._log.channel.close()
                os._exit(exit_code)
        return pid

    def _announce(self) -> None:
        settings = self._loaded.settings
        for line in self._sockets.addresses(settings):
            self._log.note("master", line)
        self._log.note("master", f"started: mode {settings.mode}, queue {settings.queue.url}")
        if settings.mode is Mode.SANDBOX:
            self._log.note(
                "master",
                "every message is captured, none is sent; to relay: set mode: production, "
                "providers: and routes: in "
                f"{[*self._loaded.files, DEFAULT_FILE][0]} (see config/relaygw.yaml)",
            )
        self._manager.ready(f"serves, mode {settings.mode}")


def run(loaded: LoadedSettings, *, config: Path | None, roles: Sequence[str] = ROLES) -> int:
    """Run `relaygw serve` in the foreground; return its exit code."""
    return Supervisor(loaded, config=config, roles=roles).run()


def _open_log(settings: Settings) -> MailLog:
    log = open_log(settings.log, hostname=settings.hostname)
    carry_library_records(log)
    return log
