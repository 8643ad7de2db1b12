from __future__ import annotations

from relaygw.store.instances import Steadiness, Unchanged


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


def test_a_heartbeat_that_does_not_change_is_counted_from_when_it_was_seen_first() -> None:
    heartbeats = Unchanged()
    heartbeats.look({"late": 5, "well": 5}, 100.0)
    heartbeats.look({"late": 5, "well": 9, "new": 1}, 110.0)
    heartbeats.look({"late": 5, "well": 2, "new": 1}, 120.0)  # the clock was set back
    assert heartbeats.unchanged_for(20.0, 120.0) == ["late"]
    assert heartbeats.unchanged_for(10.0, 120.0) == ["late", "new"]
    assert [heartbeats.last(name) for name in ("well", "gone")] == [2, None]
    heartbeats.look({"new": 1}, 121.0)
    heartbeats.look({"new": 1, "late": 5}, 122.0)
    assert heartbeats.unchanged_for(20.0, 130.0) == ["new"]
