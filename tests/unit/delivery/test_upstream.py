"""What the settings of a provider ask of every mail that it gets."""

from __future__ import annotations

from typing import Any, cast

import pytest

from relaygw.delivery.attempt import Upstream
from relaygw.mail.envelope import Source
from relaygw.policy.recipients import Screen
from relaygw.settings.model import Settings
from relaygw.store.store import Store
from relaygw.upstream.outgoing import OutgoingMail
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
