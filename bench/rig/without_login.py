"""relaygw that takes Resend for a service without a login, as smtp-sink is one.

Only so the sink gets the mark and the key of a preset. Started as
`python -m bench.rig.without_login ARGUMENTS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from relaygw.cli import main
from relaygw.settings import presets as known
from relaygw.settings.presets import Preset


def _open(presets: Mapping[str, Preset]) -> dict[str, Preset]:
    resend = presets["resend"]
    keys = {key: value for key, value in resend.keys.items() if key != "username"}
    is_open = {"keys": keys, "may_lack_auth": True, "asks": {}}
    return {**presets, "resend": resend.model_copy(update=is_open)}


if __name__ == "__main__":
    opened = _open(known.presets())
    known.presets = lambda: opened  # type: ignore[assignment]
    main()
