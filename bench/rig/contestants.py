"""relaygw and another server, set up alike and driven alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.rig.cases import Setup
from bench.rig.certificate import Certificate, make_certificate
from bench.rig.gateway import Gateway, provider
from bench.rig.maillog import MailLog
from bench.rig.mta import Mta
from bench.rig.postfix import Postfix
from bench.rig.postgres import postgres_queue
from bench.rig.sendmail import Sendmail, install_ours, postfix_command
from bench.rig.upstream import Upstream


@dataclass(slots=True)
class Contestant:
    """One running server with a provider of its own; `handed_over` counts what it was given."""

    name: str
    smtp_port: int
    upstream: Upstream
    log: MailLog | None  # only where it is in Postfix's grammar
    sendmail: Sendmail | None  # only where the setup hands over by command
    pid: int  # of the process that started all others
    handed_over: int = 0


@contextmanager
def contestants(
    setup: Setup, directory: Path, other: type[Mta]
) -> Iterator[tuple[Contestant, Contestant]]:
    """Run a fresh relaygw and a fresh one of another server, in this order."""
    certificate = make_certificate(directory)
    with (
        _relaygw(setup, directory, certificate) as ours,
        _other(setup, directory, certificate, other) as theirs,
    ):
        yield ours, theirs


@contextmanager
def _relaygw(setup: Setup, directory: Path, certificate: Certificate) -> Iterator[Contestant]:
    options = dict(setup.provider)
    if setup.over_tls:
        options |= {"tls": "implicit", "tls_ca": str(certificate.trusted)}
    with Upstream(setup, directory / "relaygw-upstream", certificate) as upstream:
        place = directory / "relaygw"
        providers = {"sink": provider(upstream.port, **options)}
        with ExitStack() as stack:
            sections = {}
            if setup.is_on_postgres:
                sections["queue"] = {"url": stack.enter_context(postgres_queue())}
            gateway = stack.enter_context(Gateway(place, providers=providers, **sections))
            log = MailLog(gateway.log_path)
            command = None
            if setup.is_command:
                command = install_ours(place / "usr", place / "maildrop")
            yield Contestant("relaygw", gateway.smtp_port, upstream, log, command, gateway.pid)


@contextmanager
def _other(
    setup: Setup, directory: Path, certificate: Certificate, kind: type[Mta]
) -> Iterator[Contestant]:
    place = directory / kind.name.lower()
    with Upstream(setup, directory / "other-upstream", certificate) as upstream:
        if not issubclass(kind, Postfix):
            with kind(place, upstream.port) as server:
                log = MailLog(server.log_path) if server.speaks_postfix else None
                yield Contestant(kind.name, server.smtp_port, upstream, log, None, server.pid)
            return
        settings = dict(setup.postfix)
        if setup.over_tls:
            settings |= {"smtp_tls_security_level": "encrypt", "smtp_tls_wrappermode": "yes"}
        with kind(place, upstream.port, settings, setup.postfix_services) as postfix:
            command = postfix_command(postfix.config) if setup.is_command else None
            log = MailLog(postfix.log_path)
            yield Contestant(kind.name, postfix.smtp_port, upstream, log, command, postfix.pid)
