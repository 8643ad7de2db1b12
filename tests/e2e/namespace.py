"""A network namespace behind a link of its own, which can be cut: packets are dropped, both ways.

with linked_namespace() as place:
    server = PostgresServer(host=place.host, inside=place.inside)
    ...
    place.cut()
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Place:
    """The far side of the link: its address, and how to start something there."""

    name: str
    host: str
    user: str

    @property
    def inside(self) -> list[str]:
        """The words before a command that is to run there as `user`."""
        entry = pwd.getpwnam(self.user)
        enter = ["nsenter", f"--net=/run/netns/{self.name}"]
        become = ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--clear-groups"]
        return [*enter, *become]

    def cut(self) -> None:
        """Drop every packet from now on; nobody is told."""
        _ip("-n", self.name, "link", "set", "far", "down")

    def mend(self) -> None:
        """Let packets through again."""
        _ip("-n", self.name, "link", "set", "far", "up")


@contextmanager
def linked_namespace(user: str = "postgres") -> Iterator[Place]:
    """Make a namespace and a link to it; the test needs the right "links"."""
    number = os.getpid() % 2**14  # one for each process that runs tests
    name, near = f"relaygw-{number}", f"rgw{number}"
    subnet = f"10.213.{number // 64}"
    first = number % 64 * 4
    place = Place(name, f"{subnet}.{first + 2}", user)
    _ip("netns", "add", name)
    try:
        _ip(*f"link add {near} type veth peer name far netns {name}".split())
        try:
            _ip("addr", "add", f"{subnet}.{first + 1}/30", "dev", near)
            _ip("-n", name, "addr", "add", f"{place.host}/30", "dev", "far")
            _ip("link", "set", near, "up")
            _ip("-n", name, "link", "set", "lo", "up")
            place.mend()
            yield place
        finally:
            _ip("link", "del", near)
    finally:
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    program = shutil.which("ip")
    assert program is not None, "ip is not installed: tests/system-packages.sh brings iproute2"
    subprocess.run([program, *words], check=True, capture_output=True, text=True, timeout=10)
