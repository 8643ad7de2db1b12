"""A start and a reload with other settings leave a line in the audit trail, once for a host."""

from __future__ import annotations

import json
from pathlib import Path

from relaygw.store.audit import AuditEntry, Trail
from tests.campaign import on_a_database
from tests.e2e.gateway import Gateway, provider_settings
from tests.e2e.ports import fixed_binds, free_port


def changes(gateway: Gateway) -> list[AuditEntry]:
    return gateway.store.audit.entries(limit=9, trail=Trail(action="settings.change"))


@on_a_database
def test_start_and_reload_note_what_changed(tmp_path: Path) -> None:
    gateway = Gateway(
        tmp_path,
        providers={"main": provider_settings(free_port())},
        processes={"front": 2, "delivery": 2},
        **fixed_binds(),
    )
    with gateway:
        gateway.wait_until(lambda: len(changes(gateway)) == 1, "the start is noted")
        gateway.settings["retry"]["max"] = "2h"
        gateway.write_config()
        gateway.reload()
        gateway.wait_until(lambda: len(changes(gateway)) == 2, "the reload is noted")
        change, first = changes(gateway)
        assert (first.actor, change.actor) == tuple(
            f"{occasion} on {gateway.settings['hostname']}" for occasion in ("start", "reload")
        )
        noted = json.loads(change.detail)
        assert (noted["changed"], noted["by"]) == (["retry.max"], "reload")
        assert noted["before"] == json.loads(first.detail)["after"] != noted["after"]
        assert "2h" not in change.detail
        gateway.stop()
        gateway.start()
        gateway.settings["retry"]["max"] = "3h"
        gateway.reload()
        gateway.wait_until(lambda: len(changes(gateway)) > 2, "the next reload is noted")
        newest, *_ = found = changes(gateway)
        assert len(found) == 3  # the start in between changed nothing
        assert json.loads(newest.detail)["before"] == noted["after"]
