"""Which mode holds for a message: the strictest of the gateway's, its listener's and its user's."""

from __future__ import annotations

from functools import cache

from relaygw.settings.mode import Mode
from relaygw.settings.model import Settings


@cache  # few combinations, and several looks for each message
def strictest(*modes: Mode | None) -> Mode:
    """Return the mode that lets least out; at least one must be given."""
    return max((mode for mode in modes if mode is not None), key=lambda mode: mode.strictness)


class Modes:
    """The modes of a configuration, compiled once."""

    def __init__(self, settings: Settings) -> None:
        self._everywhere = settings.mode
        self._listeners: dict[str, Mode] = {}
        for listener in settings.listeners:
            name = str(listener.bind)  # two on "any port" have one name: the stricter holds
            self._listeners[name] = strictest(
                settings.mode, listener.mode, self._listeners.get(name)
            )
        self._users = {user.name: strictest(settings.mode, user.mode) for user in settings.users}

    def of(
        self, listener: str | None, user: str | None, *, accepted_in: Mode | None = None
    ) -> Mode:
        """Return the mode for what came in through `listener` from `user`; None is neither.

        A listener or user that is not configured any more leaves what held at acceptance.
        """
        mode = strictest(
            self._everywhere,
            self._listeners.get(listener) if listener is not None else None,
            self._users.get(user) if user is not None else None,
        )
        is_gone = (listener is not None and listener not in self._listeners) or (
            user is not None and user not in self._users
        )
        return strictest(mode, accepted_in) if is_gone else mode
