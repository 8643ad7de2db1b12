"""The registration of a role's process."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path

from relaygw.roles.process import RoleContext, registered
from relaygw.settings.load import load_settings
from relaygw.store import instances
from relaygw.store.instances import Instance
from tests.altered_store import AlteredStore
from tests.logs import text_log
from tests.queues import make_queue


class EndsMeanwhile(AlteredStore):
    """Ends another front of this host while the table is looked at, as a reload does."""

    ending: instances.Lifeline

    def registered(self) -> list[Instance]:
        found = super().registered()
        self.ending.release()
        return found


def test_a_front_of_this_host_that_ends_meanwhile_is_no_namesake(tmp_path: Path) -> None:
    loaded = load_settings(config=None, environ={"XDG_STATE_HOME": str(tmp_path)})
    make_queue(loaded.settings.queue.url)
    store = EndsMeanwhile(loaded.settings.queue.url)
    output = io.StringIO()
    lifeline, _supervisor = os.pipe()
    context = RoleContext(loaded=loaded, lifeline=lifeline, log=text_log(output))
    before = replace(context, incarnation="before")
    store.ending = instances.Lifeline(context.instances_dir, "before")
    store.instances.register(before.instance("front"))
    with registered(context, "front", store):
        assert "hostname" not in output.getvalue()
    store.close()
