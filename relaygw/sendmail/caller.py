"""Who runs the command, by the system's word only: never by USER, LOGNAME or HOME."""

from __future__ import annotations

import posix
import pwd


def login_name() -> bytes:
    """Return the login name of the real uid, or the uid if it has no name."""
    uid = posix.getuid()
    try:
        return pwd.getpwuid(uid).pw_name.encode("utf-8", "surrogateescape")
    except KeyError:
        return b"%d" % uid
