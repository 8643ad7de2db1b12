"""What sendmail -q, -bv and postqueue -f ask for as any local user: a line each, answered in lines.

The files of the gateway are its user's; so the running front does it. Each user may flush once in
ten seconds. Of an address he hears its route and its verdict, nothing else of the lists.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable

from relaygw.errors import InvalidAddress, StoreUnavailable
from relaygw.inbound.drop_directory import DropDirectory
from relaygw.inbound.local_socket import STALL_S, LocalSocket
from relaygw.mail import drop
from relaygw.mail.address import MAX_PATH_BYTES, check_address
from relaygw.mail.words import escape
from relaygw.observe.maillog import MailLog
from relaygw.policy.rewriting import Rewriter
from relaygw.policy.router import Explainer
from relaygw.service_file import user_name
from relaygw.settings.model import Settings

FLUSH_EACH_S = 10.0
REQUEST_S = 10.0  # how long a client may take to say what he wants
Flush = Callable[[str, str], int]
"""Makes due what waits, all or one queue id, for an actor; returns how many messages."""


class LocalRequests(LocalSocket):
    """Flushes and verifies for local users."""

    name = drop.REQUEST_SOCKET
    serves = "sendmail -q and -bv"

    def __init__(
        self, directory: DropDirectory, settings: Settings, flush: Flush, log: MailLog
    ) -> None:
        super().__init__(directory, log)
        self._explainer = Explainer(settings)
        self._rewriter = Rewriter(settings.rewrite, settings.hostname)
        self._flush = flush
        self._flushed_at_s: dict[int, float] = {}  # by user id, of the last seconds

    async def answer(self, client: socket.socket, uid: int) -> None:
        """Read one request and carry it out."""
        loop, line = asyncio.get_running_loop(), b""
        async with asyncio.timeout(REQUEST_S):
            while not line.endswith(b"\n") and len(line) <= drop.MAX_REQUEST_BYTES:
                piece = await loop.sock_recv(client, drop.MAX_REQUEST_BYTES)
                if not piece:
                    return
                line += piece
        verb, *words = line[:-1].decode("utf-8", "replace").split("\0")
        if verb == drop.VERIFY and len(words) == 2:
            code, text = self._verify(*words)
        elif verb == drop.FLUSH and len(words) == 1:
            code, text = await loop.run_in_executor(self.thread, self._flush_for, uid, words[0])
        else:
            code, text = os.EX_USAGE, "the gateway does not know this request"
        async with asyncio.timeout(STALL_S):
            await loop.sock_sendall(client, drop.encode_answer(code, text))

    def _verify(self, sender: str, recipient: str) -> tuple[int, str]:
        """Return the fate of mail, and the exit code of the command."""
        for address, what in ((recipient, ""), (sender, "sender ")):
            try:
                if len(address) > MAX_PATH_BYTES:
                    raise InvalidAddress("address too long")
                if address or not what:  # "" is the null sender
                    check_address(address)
            except InvalidAddress as error:
                return os.EX_DATAERR, f"{what}{escape(address[:MAX_PATH_BYTES])}: {error}"
        lines: dict[str, None] = {}  # of several that it becomes often the same
        for address in self._rewriter.recipients(recipient):
            way = self._explainer.way(
                sender=self._rewriter.sender(sender), recipient=address, headers={}
            )
            decision = "sent to another address instead" if way.is_redirected else way.decision
            route = f"route: {way.route}"
            if way.providers:
                route += f", provider {', then '.join(way.providers)}"
            lines[f"{escape(recipient)}: {decision}; {route}"] = None
        return os.EX_OK, "\n".join(lines)

    # --- in the thread

    def _flush_for(self, uid: int, queue_id: str) -> tuple[int, str]:
        now_s = time.monotonic()
        recent = {
            user_id: at_s
            for user_id, at_s in self._flushed_at_s.items()
            if at_s > now_s - FLUSH_EACH_S
        }
        self._flushed_at_s = recent
        if uid in recent:
            return os.EX_TEMPFAIL, "each user may flush once in ten seconds; try again then"
        recent[uid] = now_s
        try:
            changed = self._flush(user_name(uid), queue_id)
        except StoreUnavailable:
            return os.EX_TEMPFAIL, "the queue cannot be written now; try again"
        if queue_id and not changed:
            return os.EX_DATAERR, f"no mail of the id {escape(queue_id[:40])} waits to be tried"
        return os.EX_OK, ""
