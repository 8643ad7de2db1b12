"""The pace of a provider that said "slower": down at once, back soon, past it slowly."""

from __future__ import annotations

from itertools import pairwise

import pytest

from relaygw.delivery.gate import Allowance
from relaygw.policy.pacing import Throughput, connections, new_ceiling, pace
from relaygw.settings.provider import Provider
from relaygw.store.limits import Tokens
from tests.builders import claimed


def test_the_pace_falls_at_once_and_comes_back_below_the_ceiling() -> None:
    assert pace(100.0, 0.0) == 85
    assert pace(100.0, 2.0) == 97
    assert 96.9 < pace(100.0, 2.001) < 98


def test_the_pace_only_grows_without_refusals() -> None:
    paces = [pace(20.0, second / 10) for second in range(3000)]
    assert all(before <= after for before, after in pairwise(paces))


def test_it_takes_some_seconds_to_pass_the_ceiling_and_a_minute_to_double() -> None:
    assert pace(100.0, 6.0) < 100 < pace(100.0, 9.0)
    assert pace(100.0, 60.0) > 200


def test_a_slow_provider_is_approached_slowly() -> None:
    assert pace(1.0, 10.0) < 0.92
    assert pace(1.0, 20.0) == pytest.approx(0.97)
    assert pace(1.0, 60.0) < 1.0 < pace(1.0, 90.0)


@pytest.mark.parametrize(
    ("offered", "accepted", "ceiling"),
    [
        (0.1, 0.0, 0.2),
        (20.0, 19.0, 20.0),  # nearly all was taken: the rate was the limit
        (100.0, 60.0, 60.0),
        (100.0, 3.0, 50.0),  # halved at most: this worker may be one of many
    ],
)
def test_what_a_refusal_shows(offered: float, accepted: float, ceiling: float) -> None:
    assert new_ceiling(offered, accepted) == ceiling


def test_throughput_is_of_the_last_two_seconds() -> None:
    throughput = Throughput()
    for tenth in range(50):
        throughput.note(2, tenth / 10)
    assert throughput.per_s(4.9) == pytest.approx(20, rel=0.06)
    assert throughput.per_s(60.0) == 0


def test_a_burst_at_the_start_counts_as_what_it_was() -> None:
    throughput = Throughput()
    throughput.note(10, 5.0)
    assert throughput.per_s(5.001) == 200
    assert throughput.per_s(6.0) == 10


def test_a_connection_more_is_tried_each_minute() -> None:
    assert [connections(3, since_s, 5) for since_s in (0, 59, 60, 120, 9999)] == [3, 3, 4, 5, 5]
    assert connections(0, 0, 5) == 1


def rate_of(**settings: object) -> Allowance:
    return Allowance(Provider.model_validate({"host": "smtp.example.com", **settings}))


def test_tokens_are_used_one_by_one() -> None:
    allowance, mail = rate_of(rate="10/s"), claimed()
    assert allowance.ready_at_s(mail, 100.0) is None, "none taken yet"
    assert allowance.wanted_tokens(mail, 3) == 4
    allowance.add_tokens(Tokens(granted=2, starts_in_s=0.05), per_s=10.0, asked_s=100.0)
    assert allowance.ready_at_s(mail, 100.0) == pytest.approx(100.05)
    allowance.spend(mail, is_paced=True)
    assert allowance.ready_at_s(mail, 100.05) == pytest.approx(100.15)
    allowance.spend(mail, is_paced=True)
    assert allowance.ready_at_s(mail, 100.2) is None


def test_what_was_taken_for_the_next_moment_is_not_kept_for_a_later_one() -> None:
    allowance, mail = rate_of(rate="1000/s"), claimed()
    allowance.add_tokens(Tokens(granted=20, starts_in_s=0.0), per_s=1000.0, asked_s=100.0)
    assert allowance.ready_at_s(mail, 100.1) == pytest.approx(100.0)
    allowance.spend(mail, is_paced=True)
    assert allowance.ready_at_s(mail, 100.5) is not None, "what a mail waits for stays"
    allowance.spend(mail, is_paced=True)
    assert allowance.ready_at_s(mail, 100.5) is None, "but no more than that"


def test_mail_to_many_waits_for_all_its_tokens_where_recipients_count() -> None:
    allowance = rate_of(rate="10/s", rate_counts="recipients")
    mail = claimed("a@x.test", "b@x.test", "c@x.test")
    allowance.add_tokens(Tokens(granted=2, starts_in_s=0.0), per_s=10.0, asked_s=100.0)
    assert allowance.ready_at_s(mail, 100.0) is None
    assert allowance.wanted_tokens(mail, 0) == 1
    allowance.add_tokens(Tokens(granted=1, starts_in_s=0.2), per_s=10.0, asked_s=100.0)
    assert allowance.ready_at_s(mail, 100.0) == pytest.approx(100.2)


def test_with_no_token_granted_it_asks_again_later() -> None:
    allowance, mail = rate_of(rate="10/s"), claimed()
    allowance.add_tokens(Tokens(granted=0, starts_in_s=0.4), per_s=10.0, asked_s=100.0)
    assert allowance.ready_at_s(mail, 100.1) == pytest.approx(100.4)
    assert allowance.ready_at_s(mail, 100.5) is None


def test_the_quota_is_taken_a_little_ahead() -> None:
    allowance, mail = rate_of(daily_quota=1000), claimed()
    assert allowance.lacks_quota(mail)
    assert allowance.wanted_quota(mail) == 10
    allowance.quota_left += 1
    assert not allowance.lacks_quota(mail)
    allowance.spend(mail, is_paced=False)
    assert allowance.lacks_quota(mail)


def test_each_transaction_counts_as_a_message() -> None:
    """Its provider sees as many messages as there are transactions."""
    mail = claimed(*(f"{number}@cust.test" for number in range(5)))
    allowance = rate_of(rate="10/s", daily_quota=8, max_recipients=2)
    assert allowance.wanted_tokens(mail, 0) == 3
    assert allowance.wanted_quota(mail) == 3
    allowance.quota_left = 3
    allowance.spend(mail, is_paced=False)
    assert allowance.quota_left == 0
    allowance.take_back(mail, recipients=2, transactions=1)
    assert allowance.quota_left == 2, "the others were not taken"
