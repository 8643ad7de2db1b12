"""The command line: a file for a command, a group or a few, loaded when one is run; `main`.

May import everything below it.
"""

from __future__ import annotations

import click

from relaygw import __version__
from relaygw.cli.frame import Root

_COMMANDS = {
    "setup": "Write a configuration, start the gateway and send a first message.",
    "serve": "Run the gateway in the foreground; without a configuration, run the sandbox.",
    "check": "Check the configuration; with --sender and --recipient explain what happens to mail.",
    "classify": "Explain a REPLY of PROVIDER, and what happens to the mail.",
    "status": "Show processes, providers, routes and the queue on one screen.",
    "send-test": "Send a test message through the gateway and follow it to its outcome.",
    "find": "Find mail in any state, newest first.",
    "queue": "Show and change mail in the queue.",
    "hold": "Hold all mail that has something in common: what waits, and what comes.",
    "sources": "List who sends what, the most mail first.",
    "guard": "Show, hold, release and allow sources and classes of mail.",
    "clients": "List throttled clients and exempt networks.",
    "sandbox": "Show, release and delete captured mail.",
    "suppress": "Show, change, import and export suppressed addresses.",
    "provider": "Show, hold and release providers.",
    "alerts": "Show current and past incidents, and test the alert channels.",
    "digest": "Show the digest of the last whole day or week; nothing is sent.",
    "webhooks": "Show receivers of events, test them, and send events again.",
    "audit": "List what operators did to mail and providers, newest first.",
    "drain": "Send all queued mail; return when the queue is empty or time is up.",
    "db": "Maintain the queue's database.",
    "config": "Show the configuration.",
    "users": "Manage the users who may log in to the gateway.",
    "import-postfix": "Create a relaygw.yaml from the Postfix configuration in DIRECTORY, and "
    "compare the two.",
    "import-queue": "Move the queue of a stopped Postfix from DIRECTORY into this one.",
    "shadow": "Compare what a running Postfix does with what relaygw would do; send nothing.",
    "install-sendmail": "Install sendmail, mailq and newaliases, and create the maildrop.",
}
"""Each with its first sentence, so that `--help` loads none."""
_BESIDE = dict.fromkeys(("import-postfix", "import-queue", "shadow"), "relaygw_postfix")
"""Those of a package beside the gateway, which may not be installed."""


@click.group(
    cls=Root,
    texts=_COMMANDS,
    beside=_BESIDE,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="relaygw", message="%(prog)s %(version)s")
def main() -> None:
    """Mail gateway between application servers and e-mail providers.

    Exit codes: 0 done, 64 usage, 65 no such message, 69 unavailable, 75 try again later,
    78 configuration.
    """
