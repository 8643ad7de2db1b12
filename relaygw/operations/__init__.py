"""What operators do: retry, hold, release, delete, move mail; the sandbox; hold a provider.

The only code that changes mail on somebody's behalf; every change leaves a line in the audit
trail. Beside it what operators look at: the state of everything (`status`), the story of a message
(`story`). Every function raises StoreUnavailable. May import `store`'s protocols, `upstream` for
what replies mean, `policy`, `settings`, `mail` and `errors`.
"""

from relaygw.operations.captured import delete_captured
from relaygw.operations.messages import ANY_STATE, BATCH_MESSAGES, LeftAlone, Result
from relaygw.operations.moving import Moving, move, plan_move
from relaygw.operations.providers import hold_provider, holds_of, release_provider
from relaygw.operations.queue import (
    MOVES,
    Action,
    Plan,
    delete,
    expire,
    hold,
    plan,
    release,
    retry,
    routes_taken,
    undelete,
)
from relaygw.operations.release_plan import Copy, RefusedCopy, ReleaseResult
from relaygw.operations.releasing import plan_release, release_captured

__all__ = [
    "ANY_STATE",
    "BATCH_MESSAGES",
    "MOVES",
    "Action",
    "Copy",
    "LeftAlone",
    "Moving",
    "Plan",
    "RefusedCopy",
    "ReleaseResult",
    "Result",
    "delete",
    "delete_captured",
    "expire",
    "hold",
    "hold_provider",
    "holds_of",
    "move",
    "plan",
    "plan_move",
    "plan_release",
    "release",
    "release_captured",
    "release_provider",
    "retry",
    "routes_taken",
    "undelete",
]
