"""A real Postfix with a directory of its own; root starts it.

with PostfixInstance(main="relayhost = [127.0.0.1]:2525") as postfix:
    ... postfix.port takes mail, postfix.log() tells what became of it ...
"""

from __future__ import annotations

import os
import re
import shutil
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from tests.e2e.ports import free_port

PATIENCE_S = 120.0
_OLD_S = 1.0  # since 1970
_MAIN = """compatibility_level = 3.6
meta_directory = /etc/postfix
queue_directory = {base}/queue
data_directory = {base}/data
maillog_file = {base}/mail.log
maillog_file_prefixes = /
myhostname = shop1.example.com
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
"""
_MASTER = """127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
smtp unix - - n - - smtp
relay unix - - n - - smtp
slow unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
local unix - n n - - local
virtual unix - n n - - virtual
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
"""


def make_index(table: Path, kind: str = "hash") -> None:
    """Write the index of a table, whatever the Postfix of this machine is told in main.cf.

    A main.cf written just now is made older: Postfix's programs wait until it is.
    """
    command = "postalias" if table.name == "aliases" else "postmap"
    with tempfile.TemporaryDirectory() as conf:
        Path(conf, "main.cf").touch()
        os.utime(Path(conf, "main.cf"), (_OLD_S, _OLD_S))
        subprocess.run([command, "-c", conf, f"{kind}:{table}"], check=True)


class PostfixInstance:
    """Runs from `start` to `stop`; `conf` and `queue` are its directories."""

    def __init__(self, main: str = "", files: Mapping[str, str] | None = None) -> None:
        """Write a configuration; `{base}` is its directory, `files` are tables beside main.cf."""
        # not below pytest's own directories: those are closed to the postfix user
        self.base = Path(tempfile.mkdtemp(prefix="relaygw-postfix-"))
        self.base.chmod(0o755)
        self.conf, self.queue = self.base / "conf", self.base / "queue"
        self.port = free_port()
        self._is_running = False
        for path in (self.conf, self.queue, self.base / "data"):
            path.mkdir()
        shutil.chown(self.base / "data", "postfix")
        own = {line.partition("=")[0] for line in main.splitlines()}
        usual = [line for line in _MAIN.splitlines() if line.partition("=")[0] not in own]
        text = "\n".join((*usual, main)).replace("{base}", str(self.base))
        (self.conf / "main.cf").write_text(text)
        (self.conf / "master.cf").write_text(_MASTER.format(port=self.port))
        for name, content in (files or {}).items():
            self.add_table(name, content)

    def add_table(self, name: str, content: str, kind: str = "hash") -> None:
        """Write a table beside main.cf, and its index."""
        (self.conf / name).write_text(content)
        (self.conf / name).chmod(0o600)
        make_index(self.conf / name, kind)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_running:
            self.run("stop", check=False)
        shutil.rmtree(self.base, ignore_errors=True)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `postfix WORDS`."""
        command = ["postfix", "-c", str(self.conf), *words]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def start(self, *, unless: str = "") -> bool:
        """Start it, wait until it takes mail; False: its log has `unless`, and it never will."""
        self.run("start")
        self._is_running = True
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            try:
                smtplib.SMTP(
                    "127.0.0.1", self.port, local_hostname="client.test", timeout=2
                ).close()
            except OSError:
                if unless and unless in self.log():
                    return False
                time.sleep(0.05)
            else:
                return True
        raise TimeoutError(self.log())

    def stop(self) -> None:
        """Stop it as an administrator does."""
        self.run("stop")
        self._is_running = False

    def set(self, **values: str) -> None:
        """Change parameters of main.cf."""
        words = [f"{name}={value}" for name, value in values.items()]
        subprocess.run(["postconf", "-c", str(self.conf), "-e", *words], check=True)

    def log(self) -> str:
        """Return all that it logged."""
        file = self.base / "mail.log"
        return file.read_text() if file.exists() else ""

    def wait_for_log(self, pattern: str, count: int = 1) -> str:
        """Wait until so many lines match; return the whole log."""
        deadline_s = time.monotonic() + PATIENCE_S
        while len(re.findall(pattern, self.log())) < count:
            if time.monotonic() > deadline_s:
                raise AssertionError(f"no {count} times {pattern!r} in:\n{self.log()[-4000:]}")
            time.sleep(0.05)
        return self.log()
