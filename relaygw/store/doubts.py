"""Deliveries in doubt that a provider's event settles."""

from __future__ import annotations

from collections.abc import Sequence

from relaygw.store.database import Transaction
from relaygw.store.verdicts import NewVerdict


def settle(tx: Transaction, verdicts: Sequence[NewVerdict]) -> None:
    """End doubts about recipients of whom a provider says that it has their mail."""
