"""The servers that can be killed: relaygw on both databases, Postfix, any other by an adapter."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from bench.rig.gateway import Gateway, provider
from bench.rig.mta import Mta, load_adapter
from bench.rig.postfix import Postfix
from bench.rig.postgres import postgres_queue

Server = Callable[[Path, int], AbstractContextManager[Mta]]

RETRY = {"first": "100ms", "max": "1s", "jitter": "0%"}
# as quick as relaygw is here: a deferred mail is tried again within seconds, and a service whose
# process was killed is started again after one
_POSTFIX = {
    "minimal_backoff_time": "1s",
    "maximal_backoff_time": "2s",
    "queue_run_delay": "1s",
    "service_throttle_time": "1s",
    "transport_retry_time": "1s",
    "initial_destination_concurrency": "20",
    "smtp_destination_concurrency_failed_cohort_limit": "0",
}


class _EagerPostfix(Postfix):
    """A Postfix that looks each second whether its queue manager runs, not each five minutes."""

    def prepare(self) -> None:
        super().prepare()
        where = ["-c", str(self.config), "-F", "qmgr/unix/wakeup=1"]
        subprocess.run(["postconf", *where], check=True)


def server(name: str, slots: int, program: tuple[str, ...] | None = None) -> Server:
    """Return what runs a server in a directory, relaying to a port over so many connections.

    `name` is relaygw, relaygw-postgres, postfix, or FILE.py:CLASS of an adapter; `program` is
    what is run in relaygw's place. Raises ValueError.
    """
    if name.startswith("relaygw"):
        return lambda directory, port: _relaygw(
            directory, port, slots, program, is_on_postgres=name.endswith("-postgres")
        )
    if name == "postfix":
        return lambda directory, port: _EagerPostfix(directory, port, _POSTFIX)
    adapter = load_adapter(name)
    return lambda directory, port: adapter(directory, port)


@contextmanager
def _relaygw(
    directory: Path, port: int, slots: int, program: tuple[str, ...] | None, *, is_on_postgres: bool
) -> Iterator[Mta]:
    upstream = {"main": provider(port, max_connections=slots)}
    if is_on_postgres:
        with postgres_queue() as url:
            gateway = Gateway(directory, providers=upstream, retry=RETRY, queue={"url": url})
            with _running(gateway, program):
                yield gateway
    else:
        with _running(Gateway(directory, providers=upstream, retry=RETRY), program) as gateway:
            yield gateway


def _running(gateway: Gateway, program: tuple[str, ...] | None) -> Gateway:
    gateway.program = program or gateway.program
    return gateway
