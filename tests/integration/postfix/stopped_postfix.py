"""A real Postfix with a directory of its own, and mail in each of its queues.

with FilledPostfix(base, per_queue=10, provider_port=port) as postfix:
    postfix.stop()
    ... postfix.queue is as a Postfix that ended leaves it ...
"""

from __future__ import annotations

import shutil
import smtplib
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.e2e.ports import free_port

PATIENCE_S = 120.0
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
relayhost = [127.0.0.1]:{provider}
transport_maps = inline:{{
    {{later.test=smtp:[127.0.0.1]:{closed}}}, {{slow.test=slow:[127.0.0.1]:{silent}}} }}
virtual_alias_maps = inline:{{ {{two@later.test=one@later.test, other@later.test}} }}
smtpd_recipient_restrictions =
    check_sender_access inline:{{ {{held@shop.test=HOLD}} }}, permit_mynetworks, reject
qmgr_message_active_limit = {active}
qmgr_message_recipient_limit = 100000
in_flow_delay = 0
smtpd_milters = {milters}
slow_destination_concurrency_limit = 5
slow_initial_destination_concurrency = 5
minimal_backoff_time = 4000s
smtp_destination_recipient_limit = 1
"""
_MASTER = """127.0.0.1:{port} inet n - n - - smtpd
postlog unix-dgram n - n - 1 postlogd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
smtp unix - - n - - smtp
slow unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
"""
CONTENT = b"Subject: order %d\r\n\r\nhello\r\n.dot\r\n"


class FilledPostfix:
    """Runs until `stop`; `queue` is its directory, `sent` and `senders` tell of mail by number."""

    def __init__(self, *, per_queue: int, provider_port: int, milter_port: int = 0) -> None:
        self.base = Path(tempfile.mkdtemp(prefix="relaygw-postfix-"))
        self.base.chmod(0o755)
        self.conf, self.queue = self.base / "conf", self.base / "queue"
        self.port = free_port()
        self.per_queue = per_queue
        self._is_running = False
        self.sent: dict[int, tuple[str, ...]] = {}
        self.senders: dict[int, str] = {}
        self._silent = socket.create_server(("127.0.0.1", 0), backlog=1024)
        for path in (self.conf, self.queue, self.base / "data"):
            path.mkdir()
        shutil.chown(self.base / "data", "postfix")
        values = {
            "base": self.base,
            "provider": provider_port,
            "closed": free_port(),
            "silent": self._silent.getsockname()[1],
            "active": per_queue,
            "milters": f"inet:127.0.0.1:{milter_port}" if milter_port else "",
        }
        (self.conf / "main.cf").write_text(_MAIN.format_map(values))
        (self.conf / "master.cf").write_text(_MASTER.format(port=self.port))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_running:
            self.run("stop", check=False)
        self._silent.close()
        shutil.rmtree(self.base, ignore_errors=True)

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `postfix WORDS`."""
        command = ["postfix", "-c", str(self.conf), *words]
        return subprocess.run(command, check=check, capture_output=True, text=True)

    def start(self) -> None:
        """Start it, and wait until it takes mail."""
        self.run("start")
        self._is_running = True
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            try:
                smtplib.SMTP("127.0.0.1", self.port).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError((self.base / "mail.log").read_text())

    def stop(self) -> None:
        """Stop it as an administrator does."""
        self.run("stop")
        self._is_running = False

    def set(self, **values: str) -> None:
        """Change parameters of main.cf."""
        words = [f"{name}={value}" for name, value in values.items()]
        subprocess.run(["postconf", "-c", str(self.conf), "-e", *words], check=True)

    def send_all(self, mails: Sequence[tuple[str, tuple[str, ...]]]) -> None:
        """Send numbered mail."""
        with smtplib.SMTP("127.0.0.1", self.port) as client:
            for sender, recipients in mails:
                number = len(self.sent)
                client.sendmail(sender, recipients, CONTENT % number)
                self.sent[number], self.senders[number] = recipients, sender

    def fill(self, *, deferred: int = 0) -> None:
        """Put as many messages into each of the four queues; so many are in one already."""
        count = self.per_queue
        self.send_all([("a@shop.test", ("b@later.test",))] * count)
        self.send_all([("held@shop.test", ("b@later.test",))] * count)
        self.wait_for({"deferred": deferred + count, "hold": count})
        self.send_all([("a@shop.test", ("b@slow.test",))] * count)
        self.wait_for({"active": count})
        self.send_all([("a@shop.test", ("b@slow.test",))] * count)
        self.wait_for({"incoming": count})

    def files(self, queue: str) -> list[Path]:
        """Return the files of a queue."""
        return sorted(path for path in (self.queue / queue).rglob("*") if path.is_file())

    def counts(self) -> dict[str, int]:
        """Return how many files there are by queue."""
        queues = ("incoming", "active", "deferred", "hold", "maildrop")
        return {name: len(found) for name in queues if (found := self.files(name))}

    def wait_for(self, counts: Mapping[str, int]) -> None:
        """Wait until queues have so many files."""
        deadline_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline_s:
            now = self.counts()
            if all(now.get(name, 0) == count for name, count in counts.items()):
                return
            time.sleep(0.05)
        raise TimeoutError(f"{self.counts()} instead of {counts}")
