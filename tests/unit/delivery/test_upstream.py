"""What the settings of a provider ask of every mail that it gets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from relaygw.delivery.attempt import Upstream
from relaygw.mail.envelope import Recipient, Source
from relaygw.policy.recipients import Screen
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.upstream.outgoing import Capabilities, OutgoingMail, plan_transaction
from tests.builders import claimed
from tests.unit.delivery.worker_context import worker_context


def sent_to(**provider: Any) -> OutgoingMail:
    providers = {"p": {"host": "gw.test", **provider}}
    routes = [{"name": "default", "providers": ["p"]}]
    settings = Settings.model_validate(
        {"mode": "production", "hostname": "web1", "providers": providers, "routes": routes}
    )
    context = worker_context(cast(Store, None), settings=settings)
    delivery = claimed("b@cust.test", source=Source(client="10.0.0.9", uid=33))
    return Upstream(context, "p", Screen(settings)).mail(delivery, ("b@cust.test",), None)


def test_its_fields_and_its_size_go_with_each_mail() -> None:
    mail = sent_to(headers={"X-A": "b"}, max_message_size=2**20)
    assert (mail.fields, mail.max_size_bytes) == ((("X-A", "b"),), 2**20)


@pytest.mark.parametrize(
    ("provider", "added"),
    [
        ({}, b""),
        ({"send_source": True}, b"X-Relaygw-Source: v=1; host=web1; uid=33; client=10.0.0.9\r\n"),
    ],
)
def test_only_another_relaygw_is_told_where_mail_came_from(
    provider: dict[str, Any], added: bytes
) -> None:
    assert sent_to(**provider).added == added


CUSTOMER, LISTED = "form@customer.test", "dev@qa.test"
MODES = ("production", "staging", "sandbox")


@pytest.mark.parametrize("released", [None, "resent", "allowed", "anyone"])
@pytest.mark.parametrize("accepted_in", MODES)
@pytest.mark.parametrize("now", MODES)
@pytest.mark.parametrize("sender", [CUSTOMER, LISTED, "blocked@qa.test", ""])
async def test_a_provider_reports_to_a_sender_only_whom_the_modes_let_have_mail(
    now: str, accepted_in: str, released: str | None, sender: str
) -> None:
    settings = Settings.model_validate(
        {
            "mode": now,
            "providers": {"p": {"host": "gw.test"}},
            "routes": [{"name": "default", "providers": ["p"]}],
            "recipients": {"allow": ["@qa.test"], "block": ["blocked@qa.test"]},
        }
    )
    wish = Recipient(
        rcpt_no=0, address=LISTED, original=None, attempts=0, dsn_notify="SUCCESS,FAILURE"
    )
    delivery = claimed(
        sender=sender,
        mode=accepted_in,
        released=released,
        recipients=(wish, replace(wish, rcpt_no=1, address="b@qa.test", dsn_notify=None)),
        dsn_ret="FULL",
        dsn_envid="order-7",
    )
    context = worker_context(cast(Store, None), settings=settings)
    mail = Upstream(context, "p", Screen(settings)).mail(delivery, (LISTED, "b@qa.test"), None)
    plan = await plan_transaction(mail, Capabilities(dsn=True))
    modes = {now, accepted_in}
    may_report = sender == "" or (
        released in (None, "resent")
        and (
            (modes == {"production"} and sender != "blocked@qa.test")
            or ("sandbox" not in modes and sender == LISTED)
        )
    )
    told = plan.mail_command, *plan.rcpt_commands.values()
    if may_report:
        assert told == (
            f"MAIL FROM:<{sender}> RET=FULL ENVID=order-7\r\n".encode(),
            b"RCPT TO:<dev@qa.test> NOTIFY=SUCCESS,FAILURE\r\n",
            b"RCPT TO:<b@qa.test>\r\n",
        )
    else:
        assert told == (
            f"MAIL FROM:<{sender}>\r\n".encode(),
            b"RCPT TO:<dev@qa.test> NOTIFY=NEVER\r\n",
            b"RCPT TO:<b@qa.test> NOTIFY=NEVER\r\n",
        )
    plain = await plan_transaction(mail, Capabilities())
    assert plain.rcpt_commands[0] == b"RCPT TO:<dev@qa.test>\r\n"
