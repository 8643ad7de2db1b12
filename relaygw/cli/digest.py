"""`relaygw digest`: the report of a day or a week."""

from __future__ import annotations

import click

from relaygw.alerting.digest import DAY_S, Period, digest_of, last_period
from relaygw.alerting.digest_forms import as_html, as_object, as_text
from relaygw.cli.frame import Command, Invocation, pass_invocation
from relaygw.cli.text import as_json

_DAYS = {"1d": 1, "7d": 7}


@click.command(cls=Command)
@click.option(
    "--every", type=click.Choice([*_DAYS]), help="A day or a week; default: as in digest.every."
)
@click.option("--now", "is_now", is_flag=True, help="Up to now, not up to the last midnight.")
@click.option("--html", "wants_html", is_flag=True, help="The HTML of the mail.")
@click.option("--json", "wants_json", is_flag=True, help="What a webhook gets.")
@pass_invocation
def digest(
    invocation: Invocation, every: str | None, is_now: bool, wants_html: bool, wants_json: bool
) -> None:
    """Show the digest of the last whole day or week; nothing is sent.

    Counts, top senders, templates and scripts, refusals, slow providers and what is held, beside
    the same of the week before.
    """
    settings = invocation.load_running().settings
    every_s = _DAYS[every] * DAY_S if every else settings.digest.every
    with invocation.open_store() as store:
        now_ms = store.clock_ms()
        period = last_period(now_ms, every_s)
        if is_now:
            period = Period(now_ms - int(every_s * 1000), now_ms)
        found = digest_of(store, settings, period)
    if wants_json:
        click.echo(as_json(as_object(found)))
    else:
        click.echo(as_html(found) if wants_html else as_text(found), nl=False)
