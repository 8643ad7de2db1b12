"""Texts are found whatever the case of their letters, those beyond ASCII too."""

from __future__ import annotations

import pytest

from relaygw.store.commands import Trail
from relaygw.store.protocol import AuditEntry, Selection, Store
from tests.builders import accepted


@pytest.mark.parametrize("part", ["ДЛИНН", "длинн", "Длинн", "Длинно про Ä"])
def test_letters_beyond_ascii_have_no_case(store: Store, part: str) -> None:
    wanted = accepted(subject="Длинно про Äpfel")
    store.accept_batch([wanted, accepted(subject="коротко")])
    found = store.search(Selection(subject=part), limit=10)
    assert [entry.queue_id for entry in found] == [wanted.queue_id]


def test_marks_of_patterns_beside_such_letters_stand_for_themselves(store: Store) -> None:
    store.accept_batch([accepted(subject="Ö 100% da"), accepted(subject="Ö 100 da")])
    assert len(store.search(Selection(subject="ö 100%"), limit=10)) == 1
    assert store.search(Selection(subject="ö_100"), limit=10) == []


def test_actors_too(store: Store) -> None:
    store.add_audit(
        AuditEntry(at_ms=1, actor="Иван", action="queue.hold", target="x", affected=1, detail="")
    )
    assert len(store.audit_entries(limit=9, trail=Trail(actor="ИВАН"))) == 1
