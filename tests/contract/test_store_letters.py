"""Texts are found whatever the case of their letters, those beyond ASCII too."""

from __future__ import annotations

import pytest

from relaygw.store.audit import AuditEntry, Trail
from relaygw.store.store import Store
from tests.builders import accepted, selected


@pytest.mark.parametrize("part", ["ДЛИНН", "длинн", "Длинн", "Длинно про Ä"])
def test_letters_beyond_ascii_have_no_case(store: Store, part: str) -> None:
    wanted = accepted(subject="Длинно про Äpfel")
    store.intake.accept_batch([wanted, accepted(subject="коротко")])
    found = store.queue.search(selected(subject=part), limit=10)
    assert [entry.queue_id for entry in found] == [wanted.queue_id]


def test_marks_of_patterns_beside_such_letters_stand_for_themselves(store: Store) -> None:
    store.intake.accept_batch([accepted(subject="Ö 100% da"), accepted(subject="Ö 100 da")])
    assert len(store.queue.search(selected(subject="ö 100%"), limit=10)) == 1
    assert store.queue.search(selected(subject="ö_100"), limit=10) == []


def test_actors_too(store: Store) -> None:
    store.audit.add(
        AuditEntry(at_ms=1, actor="Иван", action="queue.hold", target="x", affected=1, detail="")
    )
    assert len(store.audit.entries(limit=9, trail=Trail(actor="ИВАН"))) == 1
