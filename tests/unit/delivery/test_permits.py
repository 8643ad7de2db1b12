from __future__ import annotations

from relaygw.delivery.gate import Gate
from relaygw.delivery.leases import share_out
from relaygw.settings.provider import Provider
from tests.tables import each_of


def gate(permits: int, in_flight: int) -> Gate:
    settings = Provider(host="h.test", port=25, tls="none")
    return Gate(provider="p", settings=settings, permits=permits, in_flight=in_flight)


@each_of(
    ("before", "held", "after"),
    [
        ([(3, 1)], 3, [3]),
        ([(3, 1)], 5, [5]),
        ([(3, 3)], 1, [1]),
        ([(3, 1)], 0, [0]),
        ([(3, 3), (4, 0)], 5, [3, 2]),  # from the one that uses none
        ([(3, 3), (4, 0)], 2, [2, 0]),
        ([(3, 3), (0, 0), (2, 1)], 9, [3, 0, 6]),
        ([(0, 0), (0, 0)], 0, [0, 0]),
    ],
)
def test_permits_of_an_account_add_up_to_what_the_store_says(
    before: list[tuple[int, int]], held: int, after: list[int]
) -> None:
    gates = [gate(*each) for each in before]
    share_out(gates, held)
    assert [each.permits for each in gates] == after
