"""Forks `relaygw` from an image that has loaded all of its code; `tests.forked` asks it to.

What is forked is as if it had been started: its own streams, directory, environment and signals,
no other descriptor, and all that is done at an end. Only the second of imports is saved.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import importlib
import inspect
import json
import locale
import os
import pkgutil
import re
import select
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from tests import compiled_statements

if TYPE_CHECKING:
    from relaygw.settings.load import LoadedSettings

_PR_SET_CHILD_SUBREAPER = 36
_MADV_COLLAPSE = 25
_HUGE_BYTES = 2 * 2**20
_OWN_MEMORY = re.compile(r"^(\w+)-(\w+) rw-p \w+ 00:00 0 *(?:\[heap\])?$", re.MULTILINE)
_REQUEST_BYTES = 4 * 2**20
_MOST_DESCRIPTORS = 4096
_PACKAGES = ("relaygw", "relaygw_postfix")
_NOT_LOADED = ("relaygw.__main__", "relaygw.migrations")
_LOADED_LATER = (
    "alembic.command",
    "anyio._backends._asyncio",
    "encodings.utf_8_sig",
    "uvicorn.lifespan.off",
    "uvloop",
)
_SETTINGS = """
mode: production
hostname: gw.test
queue: {{url: "sqlite:///{directory}/queue.db"}}
listeners: [{{bind: "127.0.0.1:0"}}]
web: {{bind: "127.0.0.1:0"}}
log: {{target: "file:{directory}/log"}}
maildrop: {{path: "{directory}/maildrop"}}
providers: {{main: {{host: 127.0.0.1, port: 25, tls: none}}}}
routes: [{{name: default, providers: [main]}}]
"""
_MOMENT_S = 1.0
"""What the roles of the image have for their start; nothing fails if that is too short."""
ROLES = ("front", "delivery", "web")
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


def load_all() -> None:
    """Import all of relaygw, and what it imports, reads or compiles as it begins to work."""
    for package in _PACKAGES:
        path = importlib.import_module(package).__path__
        for found in pkgutil.walk_packages(path, f"{package}."):
            if not found.name.startswith(_NOT_LOADED):
                importlib.import_module(found.name)
    for name in _LOADED_LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    compiled_statements.share()
    load_what_is_kept()
    with tempfile.TemporaryDirectory() as directory:
        _begin_to_work(Path(directory))


def load_what_is_kept() -> None:
    """Read and compile what a process keeps once it has it, for all that are forked from here."""
    _fill_caches()
    _compile_expressions_and_templates()


def _fill_caches() -> None:
    """Read all tables that are read once: a process of the tests is young when it ends."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in _PACKAGES:
            for value in list(vars(module).values()):
                if hasattr(value, "cache_info") and not inspect.signature(value).parameters:
                    value()


def _compile_expressions_and_templates() -> None:
    from relaygw.settings.model import Settings
    from relaygw.upstream import classifier
    from relaygw.web.app import create_app
    from relaygw.web.page import _environment

    for preset in (None, *classifier.rule_sections()):
        classifier.known_rules(preset)
    create_app(cast(Any, None), Settings.model_validate({"mode": "sandbox"}))
    templates = _environment()
    for name in templates.list_templates():
        templates.get_template(name)


def _begin_to_work(directory: Path) -> None:
    """Do what each process does first: libraries keep what they find out."""
    from relaygw import roles
    from relaygw.settings.load import load_settings
    from relaygw.store.instances import Instance
    from tests.queues import make_queue

    config = directory / "relaygw.yaml"
    config.write_text(_SETTINGS.format(directory=directory))
    config.chmod(0o600)
    loaded = load_settings(config=config, environ={"XDG_STATE_HOME": str(directory)})
    make_queue(loaded.settings.queue.url)
    roles.prepare_schema(loaded)
    roles.note_settings(loaded, occasion="start")
    with contextlib.closing(roles.open_store(loaded)) as store:
        store.instances.register(
            Instance(
                incarnation="one", name="gw", role="front", pid=1, version="1", fingerprint="f"
            )
        )
        store.instances.registered()
        store.instances.bury("one", begun=())
    asyncio.run(_run_roles_for_a_moment(loaded))


async def _run_roles_for_a_moment(loaded: LoadedSettings) -> None:
    """Start all roles and end them as the death of their supervisor does."""
    await asyncio.gather(*(_run_for_a_moment(role, loaded) for role in ROLES))


async def _run_for_a_moment(role: str, loaded: LoadedSettings) -> None:
    from relaygw.observe.maillog import open_log
    from relaygw.roles.process import RoleContext
    from relaygw.roles.sockets import ListeningSockets

    settings = loaded.settings
    sockets = ListeningSockets((role,))
    sockets.open(settings)
    lifeline, alive = os.pipe()
    asyncio.get_running_loop().call_later(_MOMENT_S, os.close, alive)
    context = RoleContext(
        loaded=loaded,
        sockets=sockets.keep_only(role, settings),
        lifeline=lifeline,
        log=open_log(settings.log, hostname=settings.hostname),
    )
    await getattr(importlib.import_module(f"relaygw.roles.{role}"), role)(context)
    os.close(lifeline)
    context.log.channel.close()


def _gather_pages() -> None:
    """Move what is in memory to huge pages, where there are any: few are copied by a fork.

    A fork copies a page table of each 512 pages otherwise, a fifth of what a short process costs.
    """
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    for first, end in _OWN_MEMORY.findall(Path("/proc/self/maps").read_text()):
        start = -(-int(first, 16) // _HUGE_BYTES) * _HUGE_BYTES
        for page in range(start, int(end, 16) - _HUGE_BYTES + 1, _HUGE_BYTES):
            libc.madvise(page, _HUGE_BYTES, _MADV_COLLAPSE)  # a kernel may not know it


class ForkServer:
    """Takes requests of whoever connects; tells of each child's end by its wait status."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._clients: list[socket.socket] = []
        # pid: where its wait status is written, who asked for it
        self._endings: dict[int, tuple[int, socket.socket]] = {}
        self._wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> dict[str, Any] | None:
        """Return in each child what it was asked for, and None once nobody is left to ask."""
        stdin = 0  # ends with all who might
        while True:
            watched = [stdin, self._wake_read, self._listener, *self._clients]
            readable, _, _ = select.select(watched, [], [])
            if self._wake_read in readable:
                os.read(self._wake_read, 4096)
                self._reap()
            if self._listener in readable:
                self._clients.append(self._listener.accept()[0])
            for client in [one for one in self._clients if one in readable]:
                asked = self._fork(client)
                if asked is not None:
                    return asked
            if stdin in readable:
                return None

    def _fork(self, client: socket.socket) -> dict[str, Any] | None:
        """Do what a client asks for; return it in the child."""
        data, descriptors, _, _ = socket.recv_fds(client, _REQUEST_BYTES, 4)
        if not data:
            self._end_all_of(client)
            return None
        asked: dict[str, Any] = json.loads(data)
        ready, not_yet = os.pipe()
        pid = os.fork()
        if pid == 0:
            _become(asked, descriptors[:3])
            return asked
        os.close(not_yet)
        os.read(ready, 1)  # its end is closed once it is what was asked for
        os.close(ready)
        *streams, ending = descriptors
        self._endings[pid] = ending, client
        for stream in streams:
            os.close(stream)
        with contextlib.suppress(BrokenPipeError):
            client.send(b"%d" % pid)
        return None

    def _end_all_of(self, client: socket.socket) -> None:
        """Leave nothing behind, however the tests ended."""
        for pid in [pid for pid, (_, asker) in self._endings.items() if asker is client]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        self._clients.remove(client)
        client.close()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # a role whose supervisor was killed has nobody who asks
            if pid in self._endings:
                ending, _ = self._endings.pop(pid)
                with contextlib.suppress(BrokenPipeError):
                    os.write(ending, b"%d" % status)
                os.close(ending)


def _become(asked: dict[str, Any], streams: list[int]) -> None:
    """Turn a fresh child into the process that was asked for."""
    if asked["new_session"]:
        os.setsid()
    signal.set_wakeup_fd(-1)
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        is_ignored = number in _IGNORED_BY_PYTHON
        signal.signal(number, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, _MOST_DESCRIPTORS)
    os.chdir(asked["directory"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    time.tzset()
    encoding = locale.getencoding()
    sys.stdin = open(0, encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=encoding, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=encoding, errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.stderr.reconfigure(line_buffering=True)
    if asked["environment"].get("PYTHONUNBUFFERED"):
        sys.stdout.reconfigure(write_through=True)
        sys.stderr.reconfigure(write_through=True)
    for number in asked["closed"]:
        os.close(number)
        setattr(sys, ("stdin", "stdout", "stderr")[number], None)  # as the interpreter has it
    sys.argv = ["relaygw", *asked["words"]]


class _Leaving:
    """Ends a process as usual, but leaves its modules: to take them apart would copy the image."""

    code: int | None = None  # None: the interpreter ends it, and tells of what went wrong

    def __call__(self) -> None:
        if self.code is not None:
            with contextlib.suppress(Exception):  # a stream that is closed or full
                for stream in filter(None, (sys.stdout, sys.stderr)):
                    stream.flush()
                os._exit(self.code & 0xFF)


def serve(listener: socket.socket) -> None:
    """Load everything, fork on request; a child runs the command line."""
    leaving = _Leaving()
    atexit.register(leaving)  # the first one in is the last one out
    load_all()
    from relaygw.roles import heap

    # what is killed leaves no zombie
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    heap.share()
    heap.share = lambda: None  # what is forked has nothing to add
    _gather_pages()
    if ForkServer(listener).run() is not None:
        from relaygw.cli import main

        try:
            main()
        except SystemExit as end:
            if end.code is None or isinstance(end.code, int):
                leaving.code = end.code or 0
            raise


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
