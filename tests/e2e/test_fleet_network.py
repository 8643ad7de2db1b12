"""The network between gateways and PostgreSQL drops everything for some seconds (F11)."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path

from tests.e2e.blackhole import Blackhole
from tests.e2e.fleet import Traffic, starter
from tests.e2e.gateway import provider_settings
from tests.e2e.namespace import linked_namespace
from tests.fakes.scripted_provider import ThreadedProvider
from tests.postgres import PostgresServer
from tests.rights import needs

SILENCE_S = 4.0


def test_a_proxy_before_the_database_passes_nothing(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str, provider: ThreadedProvider
) -> None:
    with Blackhole(postgres.port) as hole, ExitStack() as stack:
        through = postgres_url.replace(f":{postgres.port}/", f":{hole.port}/")
        start = starter(tmp_path, through, stack)
        settings = {"p": provider_settings(provider.port)}
        fleet = [start(name, providers=settings) for name in ("gw1", "gw2")]
        with Traffic(*fleet) as traffic:
            traffic.wait_for_more(40)
            hole.fall_silent()
            time.sleep(SILENCE_S)
            hole.speak_again()
            traffic.wait_for_more(40)
        traffic.wait_until_delivered(fleet[0], provider)
        traffic.check(provider)


@needs("links")
def test_the_link_to_the_database_is_cut(tmp_path: Path, provider: ThreadedProvider) -> None:
    with linked_namespace() as place, ExitStack() as stack:
        server = PostgresServer(host=place.host, inside=place.inside)
        stack.callback(server.remove)
        server.start()
        start = starter(tmp_path, server.create_database(), stack)
        settings = {"p": provider_settings(provider.port)}
        fleet = [start(name, providers=settings) for name in ("gw1", "gw2")]
        with Traffic(*fleet) as traffic:
            traffic.wait_for_more(40)
            place.cut()
            time.sleep(SILENCE_S)
            place.mend()
            traffic.wait_for_more(40)
        traffic.wait_until_delivered(fleet[0], provider)
        traffic.check(provider)
