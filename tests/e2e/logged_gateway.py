"""Gateways whose log goes elsewhere than to the stderr that the harness reads.

What they log is followed where it goes, so that waiting for lines works as with any gateway;
`raw` keeps what was really there, `complaints` what they said on stderr.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.e2e.gateway import Gateway
from tests.e2e.ports import fixed_binds


class LoggedGateway(Gateway):
    """Base of the two; a line of JSON stands in `lines` as a line of text."""

    def __init__(self, directory: Path, *, log: dict[str, Any], **more: Any) -> None:
        super().__init__(directory, log=log, **fixed_binds(), **more)
        self.raw: list[str] = []
        self.complaints: list[str] = []

    def _follow(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        reader = threading.Thread(target=self._read_stderr, args=(process,), daemon=True)
        reader.start()
        self._follow_log(process)
        reader.join()
        process.stderr.close()

    def _read_stderr(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        self.complaints += process.stderr

    def _follow_log(self, process: subprocess.Popen[str]) -> None:
        raise NotImplementedError

    def _add(self, raw: str) -> None:
        is_json = self.settings["log"].get("format") == "json"
        with self._changed:
            self.raw.append(raw)
            self.lines.append(_as_text(raw) if is_json else raw)
            self._changed.notify_all()

    def signal(self, number: int) -> None:
        """Send a signal to the supervisor."""
        assert self._process is not None
        self._process.send_signal(number)


def _as_text(raw: str) -> str:
    try:
        record = json.loads(raw)
    except ValueError:  # torn by a full disk
        return raw
    said = record.get("message") or record.get("status") or record["event"]
    about = f"{record['qid']}: " if record.get("qid") else ""
    return f"{record['daemon']}[{record['pid']}]: {about}{said}"


class FileGateway(LoggedGateway):
    """Logs to a file, which the harness follows by name as `tail -F` does."""

    def __init__(self, directory: Path, *, path: Path | None = None, **more: Any) -> None:
        self.path = path or directory / "mail.log"
        log = {"target": f"file:{self.path}", **more.pop("log", {})}
        super().__init__(directory, log=log, **more)

    def _follow_log(self, process: subprocess.Popen[str]) -> None:
        kept = b""
        file = None
        while True:
            is_over = process.poll() is not None
            if file is None and self.path.exists():
                file = self.path.open("rb")
            data = file.read() if file is not None else b""
            *lines, kept = (kept + data).split(b"\n")
            for line in lines:
                self._add(line.decode())
            if file is not None and not data and self._is_moved(file.fileno()):
                kept += file.read()  # written since it was looked at
                file.close()
                file = None
            elif not data:
                if is_over:
                    break
                time.sleep(0.01)
        if file is not None:
            file.close()

    def _is_moved(self, descriptor: int) -> bool:
        """True once the name is another file's, and the gateway has let go of this one."""
        mine = os.fstat(descriptor)
        try:
            named = self.path.stat()
        except FileNotFoundError:
            return False
        if (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino):
            return False
        return not self.holders_of(mine.st_ino)

    def holders_of(self, inode: int) -> list[int]:
        """Return the processes of the gateway that have a file open."""
        found = []
        for pid in self.processes():
            with suppress(OSError):  # one that ends has nothing open
                for link in Path(f"/proc/{pid}/fd").iterdir():
                    with suppress(FileNotFoundError):
                        if link.stat().st_ino == inode:
                            found.append(pid)
        return found


class SyslogGateway(LoggedGateway):
    """Logs to a syslog daemon, which the harness is; it hangs while `is_hanging`."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.path = directory / "dev-log"
        self.is_hanging = threading.Event()
        self._daemon: socket.socket | None = None
        self._receiving = threading.Lock()  # a socket somebody waits at outlives its close
        log = {"target": "syslog", "syslog_socket": str(self.path), **more.pop("log", {})}
        super().__init__(directory, log=log, **more)

    def start_daemon(self) -> None:
        """Listen on the socket, as syslog does after its start."""
        daemon = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        daemon.bind(str(self.path))
        daemon.settimeout(0.05)
        self._daemon = daemon

    def stop_daemon(self) -> None:
        """Go away, as syslog does when it is stopped."""
        daemon, self._daemon = self._daemon, None
        self.path.unlink()
        if daemon is not None:
            with self._receiving:
                daemon.close()

    def _follow_log(self, process: subprocess.Popen[str]) -> None:
        while True:
            is_over = process.poll() is not None
            daemon = self._daemon
            if daemon is None or self.is_hanging.is_set():
                if is_over:
                    break
                time.sleep(0.01)
                continue
            try:
                with self._receiving:
                    received = daemon.recv(65536)
                self._add(received.decode())
            except TimeoutError:
                if is_over:
                    break
            except OSError:  # stopped meanwhile
                continue

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if self._daemon is not None:
            self.stop_daemon()
