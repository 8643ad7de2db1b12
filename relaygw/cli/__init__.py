"""The command line: one file a command or group, loaded when it is run; `main` is the whole of it.

May import everything below it.
"""

from __future__ import annotations

import click

from relaygw import __version__
from relaygw.cli.frame import Root

_COMMANDS = {
    "setup": "Write a configuration, start the gateway and send the first mail.",
    "serve": "Run the gateway in the foreground; without a configuration the sandbox.",
    "check": "Check the configuration; with --sender and --recipient explain what happens to mail.",
    "classify": "Tell what REPLY of PROVIDER means, and what happens to the mail.",
    "status": "Show processes, providers, routes and the queue on one screen.",
    "send-test": "Send one message through the gateway and watch it until it ends.",
    "find": "Find mail in any state, the newest first.",
    "queue": "Look at the queue and change what is in it.",
    "sandbox": "Look at captured mail, release and delete it.",
    "provider": "Look at providers, hold and release them.",
    "alerts": "Look at trouble that was or is, and try who is told of it.",
    "audit": "Tell what operators did to mail and providers, the newest first.",
    "drain": "Send what is queued now; return when nothing is left, or time is up.",
    "db": "Look after the queue's database.",
    "config": "Look at the configuration.",
    "users": "Look after the users who may log in to the gateway.",
    "import-postfix": "Make a relaygw.yaml of a Postfix's DIRECTORY, and compare the two.",
    "import-queue": "Move the queue of a stopped Postfix, DIRECTORY, into this one.",
    "shadow": "Compare what a running Postfix does with what relaygw would do; sends nothing.",
    "install-sendmail": "Put sendmail, mailq and newaliases in place, and make the maildrop.",
}
"""Each is in the module of its name; with its first sentence, so that `--help` loads none."""
_LATER = ("sources",)


@click.group(
    cls=Root,
    files=_COMMANDS,
    later=_LATER,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="relaygw", message="%(prog)s %(version)s")
def main() -> None:
    """Mail gateway between application servers and e-mail providers.

    Exit codes: 0 done, 64 usage, 65 no such message, 69 unavailable, 75 try again later,
    78 configuration.
    """
