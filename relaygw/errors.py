"""Errors that cross a room's border.

A message says what is wrong, the value, what was expected, where, and what to do.
SMTP clients never see these texts: they get a generic reply and the text goes to the log.
"""

from __future__ import annotations

import sys
from shlex import quote


class RelaygwError(Exception):
    """Base of every error that relaygw raises on purpose."""


class SettingsError(RelaygwError):
    """The configuration is wrong: the text names file, line, key, value and remedy."""


class SettingsUnreadable(SettingsError):
    """This user may not read the configuration."""


class PackageMissing(SettingsError):
    """The configuration takes a package that is not installed; the text names the command.

    That is never `pip install` of an extra of relaygw by its name, which is not ours on PyPI.
    """

    def __init__(self, package: str) -> None:
        command = f"python3 -m pip --python {quote(sys.executable)} install {quote(package)}"
        super().__init__(f"the package {package} is not installed; run: {command}")


class InvalidAddress(RelaygwError):
    """An envelope address breaks RFC 5321; `code` and `status` are the reply to give."""

    def __init__(self, reason: str, *, code: int = 501, status: str = "5.1.3") -> None:
        super().__init__(reason)
        self.code = code
        self.status = status


class InvalidTransition(RelaygwError):
    """A state change that mail.state.TRANSITIONS does not know."""


class StoreUnavailable(RelaygwError):
    """The store could not do it now; nothing was changed. Trying again later is right."""


class Unstorable(StoreUnavailable):
    """The store works, but not with this: a row it must refuse, or a defect."""


class UnfitServer(StoreUnavailable):
    """The database answers, and cannot keep mail as it is set up; the text names the remedy."""


class StoreFull(StoreUnavailable):
    """The volume or database has no space left; nothing was changed."""


class QueueDamaged(StoreUnavailable):
    """The queue's files are not whole: the text names the file and the remedy."""


class AlreadyAccepted(RelaygwError):
    """A message with this drop id was stored before; nothing was changed. No trouble at all."""


class TakenBefore(RelaygwError):
    """The same message was taken within the last minute, as `queue_id`; nothing was changed."""

    def __init__(self, queue_id: str, client: str) -> None:
        super().__init__(f"{queue_id}: the same message came again from {client}")
        self.queue_id = queue_id


class SchemaMismatch(RelaygwError):
    """The database has a schema that this version does not know; the text names the command."""


class NewerSchema(SchemaMismatch):
    """A later version made the schema: trying again later is in vain."""


class IntakeFull(RelaygwError):
    """Too much mail waits to be written; the client should come back later."""


class EndsReaders(RelaygwError):
    """Reading it ended several processes, so that it is not read any more: observe.readings."""


class ContentInvalid(RelaygwError):
    """Message content cannot be converted for a provider that lacks an extension."""


class ContentDamaged(RelaygwError):
    """The stored content of a message is not what was accepted; it must not be sent."""
