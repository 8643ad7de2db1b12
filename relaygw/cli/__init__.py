"""The command line: one file a command group; `main` is the whole of it.

May import everything below it, but imports settings, policy and the database inside the
commands, so that `relaygw --help` does not wait for them.
"""

from __future__ import annotations

import click

from relaygw import __version__
from relaygw.cli.alerts import alerts
from relaygw.cli.audit import audit
from relaygw.cli.check import check
from relaygw.cli.classify import classify
from relaygw.cli.config import config
from relaygw.cli.db import db
from relaygw.cli.drain import drain
from relaygw.cli.frame import Root
from relaygw.cli.install_sendmail import install_sendmail
from relaygw.cli.provider import provider
from relaygw.cli.queue import queue
from relaygw.cli.sandbox import sandbox
from relaygw.cli.send_test import send_test
from relaygw.cli.serve import serve
from relaygw.cli.status import status
from relaygw.cli.users import users

_LATER = (
    "import-postfix",
    "import-queue",
    "sources",
)


@click.group(cls=Root, later=_LATER, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="relaygw", message="%(prog)s %(version)s")
def main() -> None:
    """Mail gateway between application servers and e-mail providers.

    Exit codes: 0 done, 64 usage, 65 no such message, 69 unavailable, 75 try again later,
    78 configuration.
    """


for _command in (
    serve,
    check,
    classify,
    status,
    send_test,
    queue,
    sandbox,
    provider,
    alerts,
    audit,
    drain,
    db,
    config,
    users,
    install_sendmail,
):
    main.add_command(_command)
