"""Addresses that get no more mail of a sender's domain."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.store.database import Transaction
from relaygw.store.rules import StoreRules
from relaygw.store.verdicts import NewVerdict


def note_verdicts(tx: Transaction, verdicts: Sequence[NewVerdict], rules: StoreRules) -> None:
    """Suppress the addresses that new verdicts are a reason for."""
