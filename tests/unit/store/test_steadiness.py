from __future__ import annotations

from relaygw.store.steadiness import Steadiness


def test_who_has_no_heartbeat_only_looks_on() -> None:
    assert Steadiness().has_lasted(20.0, 5.0)


def test_it_lasts_as_long_as_no_heartbeat_is_missed() -> None:
    steadiness = Steadiness()
    for at_s in range(100, 131, 5):
        steadiness.note_beat(float(at_s))
    assert steadiness.has_lasted(20.0, 131.0)
    assert not steadiness.has_lasted(40.0, 131.0)
    assert steadiness.has_lasted(20.0, 140.0)
    assert not steadiness.has_lasted(20.0, 140.1), "one is overdue"


def test_it_begins_anew_after_a_gap() -> None:
    steadiness = Steadiness()
    for at_s in (100.0, 105.0, 110.0, 115.0, 120.0, 131.0):
        steadiness.note_beat(at_s)
    assert not steadiness.has_lasted(20.0, 131.0)
    steadiness.note_beat(141.0)
    steadiness.note_beat(151.0)
    assert steadiness.has_lasted(20.0, 151.0)
