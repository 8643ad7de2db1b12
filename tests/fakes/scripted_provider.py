"""A provider to test against: a real SMTP server on a loopback port that follows a script.

    async with ScriptedProvider(tls="starttls", users={"shop": "secret"}) as provider:
        provider.script("RCPT", b"450 4.2.1 later\\r\\n")       # the next RCPT only
        provider.script("CONTENT", (Action.RECORD, Action.RESET))  # takes it, never says so
        provider.recipients["b@y.test"] = b"550 5.1.1 no\\r\\n"    # always, for this address
        settings = provider.settings(username="shop", password="plain:secret")
        ... relay by these settings ...
        await provider.wait_for_messages(1)
        assert provider.messages[0].content == b"..."

Verbs: greeting EHLO HELO STARTTLS AUTH MAIL RCPT DATA CONTENT RSET NOOP QUIT. `script` adds
actions to a verb's list; each use of the verb, on any connection, takes the first one, and
answers as usual when the list is empty. CONTENT is the answer to the final dot. An action is

- bytes: sent as they are, right or wrong; the server's state follows the first digit (2 to MAIL
  begins a transaction, 354 to DATA reads content, 220 to STARTTLS begins the handshake, 2 to
  CONTENT records the message, 235 to AUTH logs in);
- Action.DEFAULT: the usual answer; Action.DROP: close (FIN); Action.RESET: close with RST;
  Action.HANG: read nothing and say nothing until the server stops; Action.RECORD: record the
  message (CONTENT only), say nothing;
- Wait(event): go on when the asyncio.Event is set;
- a tuple of these, done in order.

`connections` holds the raw bytes, commands and AUTH mechanisms of every connection, `messages`
what was accepted. `certificate` is valid, wrong_host, expired, untrusted, self_signed or ending
(tomorrow).
With XOAUTH2 in `auth` the tokens stand in `users` as passwords do; both can be changed while it
runs. ThreadedProvider is the same server in a thread of its own, for tests that drive processes
or blocking clients.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import hmac
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
from collections import defaultdict, deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, Self

import trustme

from relaygw.settings.provider import Provider

HOST = "127.0.0.1"
_CLOSED_WITHIN_S = 5.0
_TURNS_TO_BEGIN = 10  # of the loop, from accepting a connection to its task; half would do
DEFAULT_EXTENSIONS = ("PIPELINING", "SIZE 52428800", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES")
_READ_BYTES = 262144


class Action(Enum):
    """What to do instead of, or after, sending bytes."""

    DEFAULT = auto()
    DROP = auto()
    RESET = auto()
    HANG = auto()
    RECORD = auto()


@dataclass(frozen=True)
class Wait:
    """Goes on when `event` is set."""

    event: asyncio.Event


Step = bytes | Action | Wait
Script = Step | tuple[Step, ...]


@dataclass(frozen=True, kw_only=True)
class ReceivedMessage:
    """A message that the provider accepted; `content` has its dots unstuffed."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    mail_parameters: tuple[str, ...]  # as sent: ("SIZE=120", "BODY=8BITMIME")
    user: str | None
    is_tls: bool
    connection_no: int


@dataclass(kw_only=True)
class Connection:
    """What was seen of one connection."""

    number: int
    transcript: bytearray = field(default_factory=bytearray)  # decrypted, as received
    commands: list[bytes] = field(default_factory=list)
    auth_mechanisms: list[str] = field(default_factory=list)
    user: str | None = None
    is_tls: bool = False
    is_pipelined: bool = False  # a command was there before the last one was answered
    is_closed: bool = False

    def verbs(self) -> list[str]:
        """Return the verbs in order, without their arguments."""
        return [command.split(b" ")[0].split(b":")[0].decode().upper() for command in self.commands]


class _Closed(Exception):
    """The connection is over."""


class ScriptedProvider:
    """An asynchronous SMTP server; see the module's text."""

    def __init__(
        self,
        *,
        tls: str | None = None,
        certificate: str = "valid",
        users: dict[str, str] | None = None,
        auth: Iterable[str] = ("PLAIN", "LOGIN", "CRAM-MD5"),
        extensions: Iterable[str] = DEFAULT_EXTENSIONS,
        port: int = 0,
    ) -> None:
        self.host = HOST
        self.port = port  # 0: any; known from the start on
        self.tls_ca: str | None = None
        self.users = dict(users or {})
        self.extensions = list(extensions)
        self.auth = list(auth) if self.users else []
        self.recipients: dict[str, Script] = {}
        self.messages: list[ReceivedMessage] = []
        self.connections: list[Connection] = []
        self.tls = tls
        self._certificate = certificate
        self._scripts: dict[str, deque[Script]] = defaultdict(deque)
        self._news = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: list[asyncio.StreamWriter] = []
        self._directory = tempfile.TemporaryDirectory(prefix="scripted-provider-")
        self.server_context: ssl.SSLContext | None = None

    def script(self, verb: str, *actions: Script) -> None:
        """Add actions for the next uses of `verb`."""
        self._scripts[verb].extend(actions)

    def clear(self) -> None:
        """Forget the actions that were not begun."""
        self._scripts.clear()

    def pending(self, verb: str) -> int:
        """Return how many actions for `verb` were not begun yet."""
        return len(self._scripts[verb])

    async def next_action(self, verb: str) -> Script:
        """Take the action for this use of `verb`."""
        if not self._scripts[verb]:
            return Action.DEFAULT
        action = self._scripts[verb].popleft()
        await self.note()
        return action

    def reply_to(self, message: ReceivedMessage) -> bytes:
        """Return the usual answer to the final dot of a message."""
        return b"250 2.0.0 Ok: queued\r\n"

    def take(self, message: ReceivedMessage) -> None:
        """Record a message that was accepted."""
        self.messages.append(message)

    def settings(self, **changes: Any) -> Provider:
        """Return settings that lead here: host, port, TLS and CA as served, and `changes`.

        A provider so near is sent no chained transactions by default, unless the machine is busy:
        it is by these in no case.
        """
        policy = {None: "none", "starttls": "required", "implicit": "implicit"}[self.tls]
        here = {"host": HOST, "port": self.port, "tls": policy, "tls_ca": self.tls_ca}
        return Provider(**{**here, "chain_transactions": False, **changes})

    async def __aenter__(self) -> Self:
        if self.tls is not None:
            self._make_certificates()
        self._server = await asyncio.start_server(
            self._serve,
            HOST,
            self.port,
            ssl=self.server_context if self.tls == "implicit" else None,
        )
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop_listening()
        for _ in range(_TURNS_TO_BEGIN):  # who was let in has a task that will close
            await asyncio.sleep(0)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in self._writers:
            writer.transport.abort()
            # asyncio tells nobody of the loss of a connection whose handshake was cancelled
            with suppress(OSError, TimeoutError):
                async with asyncio.timeout(_CLOSED_WITHIN_S):
                    await writer.wait_closed()
        self._directory.cleanup()

    async def stop_listening(self) -> None:
        """Refuse new connections from now on; open ones go on.

        Who was accepted in this turn of the loop is begun in the next: asyncio forgets the
        connections of a server that is closed in between, and never closes them.
        """
        for listening in self._server.sockets:
            asyncio.get_running_loop().remove_reader(listening)
        await asyncio.sleep(0)
        self._server.close()

    async def wait_for_messages(self, count: int, *, limit_s: float = 90.0) -> None:
        """Return once `count` messages were accepted."""
        await self.wait_until(lambda: len(self.messages) >= count, limit_s=limit_s)

    async def wait_until(self, condition: Any, *, limit_s: float = 90.0) -> None:
        """Return once `condition()` holds; looked at whenever anything happens here."""
        async with asyncio.timeout(limit_s), self._news:
            await self._news.wait_for(condition)

    async def note(self) -> None:
        """Wake those who wait for something to happen."""
        async with self._news:
            self._news.notify_all()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.append(writer)
        connection = Connection(number=len(self.connections), is_tls=self.tls == "implicit")
        self.connections.append(connection)
        with suppress(_Closed, OSError, asyncio.CancelledError):
            try:
                await self.note()
                await _Conversation(self, connection, reader, writer).run()
            finally:
                writer.close()
                connection.is_closed = True
                await self.note()
        self._tasks.discard(task)

    def _make_certificates(self) -> None:
        trusted = trustme.CA()
        path = Path(self._directory.name) / "ca.pem"
        trusted.cert_pem.write_to_path(path)
        self.tls_ca = str(path)
        issuer = trustme.CA() if self._certificate == "untrusted" else trusted
        now = datetime.datetime.now(datetime.UTC)
        names = ("elsewhere.test",) if self._certificate == "wrong_host" else (HOST, "localhost")
        days_left = {"expired": -1, "ending": 1}.get(self._certificate, 100)
        issued = issuer.issue_cert(
            *names,
            not_before=now - datetime.timedelta(days=10),
            not_after=now + datetime.timedelta(days=days_left),
        )
        self.server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if self._certificate == "self_signed":
            self.server_context.load_cert_chain(_self_signed(path.with_name("self-signed.pem")))
        else:
            issued.configure_cert(self.server_context)


def _self_signed(path: Path) -> Path:
    """Make a key and its own certificate in one file, as an administrator does."""
    made = "openssl req -x509 -noenc -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 30"
    words = [*made.split(), "-subj", "/CN=mail.internal", "-keyout", path, "-out", f"{path}.crt"]
    subprocess.run(words, check=True, capture_output=True)
    with path.open("a") as file:
        file.write(Path(f"{path}.crt").read_text())
    return path


class _Conversation:
    """The server's side of one connection."""

    def __init__(
        self,
        provider: ScriptedProvider,
        connection: Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self._provider = provider
        self._connection = connection
        self._reader = reader
        self._writer = writer
        self._pending = bytearray()
        self._reset()

    async def run(self) -> None:
        await self._act("greeting", b"220 provider.test ESMTP\r\n")
        while True:
            line = await self._read_line()
            self._connection.commands.append(line)
            self._connection.is_pipelined |= bool(self._pending)
            await self._provider.note()
            await self._obey(line)

    async def _obey(self, line: bytes) -> None:
        verb = line.split(b" ")[0].split(b":")[0].decode("latin-1").upper()
        match verb:
            case "EHLO":
                self._reset()
                await self._act(verb, self._ehlo_reply())
            case "STARTTLS":
                await self._start_tls()
            case "AUTH":
                await self._authenticate(line)
            case "MAIL":
                await self._mail(line)
            case "RCPT":
                await self._rcpt(line)
            case "DATA":
                await self._data()
            case "RSET":
                self._reset()
                await self._act(verb, b"250 2.0.0 Ok\r\n")
            case "QUIT":
                await self._act(verb, (b"221 2.0.0 Bye\r\n", Action.DROP))
            case "HELO" | "NOOP":
                await self._act(verb, b"250 2.0.0 Ok\r\n")
            case _:
                await self._say(b"502 5.5.2 unknown\r\n")

    def _ehlo_reply(self) -> bytes:
        lines = ["provider.test", *self._provider.extensions]
        if self._provider.tls == "starttls" and not self._connection.is_tls:
            lines.append("STARTTLS")
        if self._provider.auth:
            lines.append("AUTH " + " ".join(self._provider.auth))
        shown = [f"250-{line}" for line in lines[:-1]] + [f"250 {lines[-1]}"]
        return ("\r\n".join(shown) + "\r\n").encode()

    async def _start_tls(self) -> None:
        said = await self._act("STARTTLS", b"220 2.0.0 go ahead\r\n")
        if said.startswith(b"220"):
            assert self._provider.server_context is not None
            self._pending.clear()  # RFC 3207: what came in clear is forgotten
            await self._writer.start_tls(self._provider.server_context)
            self._connection.is_tls = True
            self._reset()

    async def _authenticate(self, line: bytes) -> None:
        _, mechanism, *initial = line.decode("latin-1").split(" ")
        self._connection.auth_mechanisms.append(mechanism.upper())
        action = await self._provider.next_action("AUTH")
        if action is not Action.DEFAULT:
            await self._perform(action, b"")
            return
        user = None
        match mechanism.upper():
            case "PLAIN":
                text = await self._ask(b"", initial)
                _, user, password = text.split("\0")
                is_right = self._provider.users.get(user) == password
            case "XOAUTH2":
                user, token = _parse_xoauth2(await self._ask(b"", initial))
                is_right = self._provider.users.get(user) == token
                if not is_right:
                    await self._say(b"334 " + base64.b64encode(b'{"status":"400"}') + b"\r\n")
                    assert await self._read_line() == b""
            case "LOGIN":
                user = await self._ask(b"VXNlcm5hbWU6", initial)
                is_right = self._provider.users.get(user) == await self._ask(b"UGFzc3dvcmQ6", [])
            case _:
                challenge = b"<1.2@provider.test>"
                user, digest = (await self._ask(base64.b64encode(challenge), [])).split(" ")
                password = self._provider.users.get(user, "")
                is_right = digest == hmac.new(password.encode(), challenge, "md5").hexdigest()
        if is_right:
            self._connection.user = user
        await self._say(b"235 2.7.0 Ok\r\n" if is_right else b"535 5.7.8 no\r\n")

    async def _ask(self, challenge: bytes, initial: list[str]) -> str:
        if initial:
            answer = initial[0].encode()
        else:
            await self._say(b"334 " + challenge + b"\r\n")
            answer = await self._read_line()
        try:
            return base64.b64decode(answer, validate=True).decode()
        except binascii.Error:
            await self._say(b"501 5.5.2 not base64\r\n")
            raise _Closed from None

    async def _mail(self, line: bytes) -> None:
        if self._sender is not None:
            await self._say(b"503 5.5.1 nested MAIL\r\n")
            return
        said = await self._act("MAIL", b"250 2.1.0 Ok\r\n")
        if said.startswith(b"2"):
            address, self._parameters = _path_of(line)
            self._sender = address

    async def _rcpt(self, line: bytes) -> None:
        address, _ = _path_of(line)
        if self._sender is None:
            await self._say(b"503 5.5.1 need MAIL\r\n")
            return
        own = self._provider.recipients.get(address)
        if own is not None:
            said = await self._perform(own, b"250 2.1.5 Ok\r\n")
        else:
            said = await self._act("RCPT", b"250 2.1.5 Ok\r\n")
        if said.startswith(b"2"):
            self._accepted.append(address)

    async def _data(self) -> None:
        usual = b"354 go\r\n" if self._accepted else b"554 5.5.1 no valid recipients\r\n"
        said = await self._act("DATA", usual)
        if not said.startswith(b"354"):
            return
        self._content = await self._read_content()
        usual = self._provider.reply_to(self._message())
        script = await self._provider.next_action("CONTENT")
        answer = usual if script is Action.DEFAULT else script
        if isinstance(answer, bytes) and answer.startswith(b"2"):
            # first, as with any server: who has read the answer may look, or be dead
            await self._record()
            await self._perform(answer, b"")
        elif (await self._perform(answer, usual)).startswith(b"2"):
            await self._record()
        self._reset()

    async def _record(self) -> None:
        self._provider.take(self._message())
        await self._provider.note()

    def _message(self) -> ReceivedMessage:
        return ReceivedMessage(
            sender=self._sender or "",
            recipients=tuple(self._accepted),
            content=self._content,
            mail_parameters=self._parameters,
            user=self._connection.user,
            is_tls=self._connection.is_tls,
            connection_no=self._connection.number,
        )

    def _reset(self) -> None:
        self._sender: str | None = None
        self._parameters: tuple[str, ...] = ()
        self._accepted: list[str] = []
        self._content = b""

    # --- the script

    async def _act(self, verb: str, usual: Script) -> bytes:
        """Do the next action for `verb` and return the bytes that were said."""
        return await self._perform(await self._provider.next_action(verb), usual)

    async def _perform(self, script: Script, usual: Script) -> bytes:
        said = b""
        for step in script if isinstance(script, tuple) else (script,):
            match step:
                case bytes():
                    said += step
                    await self._say(step)
                case Wait(event):
                    await event.wait()
                case Action.DEFAULT:
                    said += await self._perform(usual, b"")
                case Action.RECORD:
                    await self._record()
                case Action.HANG:
                    self._writer.transport.pause_reading()  # type: ignore[attr-defined]
                    await asyncio.Event().wait()
                case Action.DROP:
                    self._writer.close()
                    raise _Closed
                case Action.RESET:
                    self._reset_connection()
                    raise _Closed
        return said

    def _reset_connection(self) -> None:
        sock = self._writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    # --- bytes

    async def _say(self, octets: bytes) -> None:
        self._writer.write(octets)
        await self._writer.drain()

    async def _read_more(self) -> None:
        octets = await self._reader.read(_READ_BYTES)
        if not octets:
            raise _Closed
        self._connection.transcript += octets
        self._pending += octets

    async def _read_line(self) -> bytes:
        while (end := self._pending.find(b"\r\n")) < 0:
            await self._read_more()
        line = bytes(self._pending[:end])
        del self._pending[: end + 2]
        return line

    async def _read_content(self) -> bytes:
        # the CRLF of the DATA line counts as the line end before an immediate dot
        self._pending[:0] = b"\r\n"
        searched = 0
        while (end := self._pending.find(b"\r\n.\r\n", searched)) < 0:
            searched = max(0, len(self._pending) - 4)
            await self._read_more()
        stuffed = bytes(self._pending[: end + 2])
        del self._pending[: end + 5]
        return stuffed.replace(b"\r\n.", b"\r\n")[2:]


def _parse_xoauth2(text: str) -> tuple[str, str]:
    """Return user and token of `user=U^Aauth=Bearer T^A^A`."""
    user, bearer, *end = text.split("\1")
    assert user.startswith("user=") and bearer.startswith("auth=Bearer ") and end == ["", ""]
    return user.removeprefix("user="), bearer.removeprefix("auth=Bearer ")


def _path_of(line: bytes) -> tuple[str, tuple[str, ...]]:
    """Return the address and the parameters of a MAIL or RCPT line."""
    text = line.decode("utf-8", "surrogateescape")
    start, end = text.index("<"), text.rindex(">")
    return text[start + 1 : end], tuple(text[end + 1 :].split())


class ThreadedProvider:
    """A ScriptedProvider in its own thread; attributes not named here are the provider's."""

    def __init__(self, kind: type[ScriptedProvider] | None = None, **options: Any) -> None:
        self._kind = kind or ScriptedProvider
        self._options = options
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._main, name="scripted-provider")

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_provider"], name)

    def wait_for_messages(self, count: int, *, limit_s: float = 90.0) -> None:
        """Block until `count` messages were accepted."""
        self.run(self._provider.wait_for_messages(count, limit_s=limit_s))

    def wait_until(self, condition: Any, *, limit_s: float = 90.0) -> None:
        """Block until `condition()` holds."""
        self.run(self._provider.wait_until(condition, limit_s=limit_s))

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run `coroutine` in the server's loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _main(self) -> None:
        asyncio.run(self._amain())

    async def _amain(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        async with self._kind(**self._options) as self._provider:
            self._ready.set()
            await self._stop.wait()
