"""What receivers of webhooks are to be told."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.store.database import Transaction
from relaygw.store.rules import StoreRules
from relaygw.store.verdicts import NewVerdict


def add_verdicts(tx: Transaction, verdicts: Sequence[NewVerdict], rules: StoreRules) -> None:
    """Have the receivers told of new verdicts."""
