"""What one client may use, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.budget import Accounts, Buckets, Budget, Memory, Pace, Tariff, TokenBucket

# Rates


def test_a_bucket_allows_a_burst_and_then_the_rate() -> None:
    bucket = TokenBucket(10)
    assert [bucket.take(0.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert not bucket.take(0.05)
    assert bucket.take(0.1)
    assert not bucket.take(0.1)


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    bucket = TokenBucket(10, burst=3)
    bucket.take(0.0)
    assert [bucket.take(1_000.0) for _ in range(4)] == [True, True, True, False]


def test_a_rate_below_one_still_lets_one_through() -> None:
    bucket = TokenBucket(0.1)
    assert bucket.take(0.0)
    assert not bucket.take(9.0)
    assert bucket.take(10.0)


def test_a_bucket_says_how_long_to_wait() -> None:
    bucket = TokenBucket(2)
    assert bucket.wait(0.0) == 0
    bucket.take(0.0, 2)
    assert bucket.wait(0.0) == pytest.approx(0.5)
    assert bucket.wait(0.25) == pytest.approx(0.25)
    assert bucket.wait(0.25, 100) == math.inf
    assert bucket.take(0.5)


def test_what_is_refused_costs_nothing() -> None:
    bucket = TokenBucket(1, burst=5)
    assert not bucket.take(0.0, 6)
    assert bucket.take(0.0, 5)


def test_a_clock_that_runs_backwards_gives_nothing_away() -> None:
    bucket = TokenBucket(1)
    assert bucket.take(100.0)
    assert not bucket.take(50.0)
    assert not bucket.take(100.5)
    assert bucket.take(101.0)


@given(
    st.floats(0.5, 1_000),
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), max_size=60),
)
def test_no_sequence_of_requests_gets_more_than_burst_plus_rate(
    rate: float, burst: int, requests: list[tuple[float, int]]
) -> None:
    bucket = TokenBucket(rate, burst)
    now = 0.0
    taken = 0
    for pause, count in requests:
        now += pause
        if bucket.take(now, count):
            taken += count
    assert taken <= burst + rate * now + 1e-6 * (1 + rate * now)


# Rates of addresses


def test_a_few_failures_are_free_and_then_it_is_slow() -> None:
    buckets = Buckets(0.5, burst=3)
    for _ in range(3):
        assert buckets.wait("10.0.0.1", 0.0) == 0
        buckets.count("10.0.0.1", 0.0)
    assert buckets.wait("10.0.0.1", 0.0) == pytest.approx(2)
    assert buckets.wait("10.0.0.2", 0.0) == 0
    assert buckets.wait("10.0.0.1", 2.0) == 0


def test_only_so_many_addresses_are_remembered_and_the_oldest_goes_first() -> None:
    buckets = Buckets(0.001, burst=1, max_addresses=3)
    for number in range(5):
        buckets.count(f"10.0.0.{number}", float(number))
    assert len(buckets) == 3
    assert buckets.wait("10.0.0.0", 5.0) == 0
    assert buckets.wait("10.0.0.4", 5.0) > 0


def test_an_address_that_behaves_is_forgotten() -> None:
    buckets = Buckets(1, burst=1)
    buckets.count("10.0.0.1", 0.0)
    buckets.count("10.0.0.2", 100.0)
    assert len(buckets) == 1


def test_what_has_happened_already_is_owed() -> None:
    bucket = TokenBucket(10, burst=20)
    bucket.debit(0.0, 30)
    assert not bucket.take(0.9)
    assert bucket.take(1.1)


# Budgets

TARIFF = Tariff(processor=0.1, frames=100, size=1_000, burst_seconds=2)
ADDRESS = Tariff(processor=0.2, frames=200, size=2_000, burst_seconds=2)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def accounts(clock: Clock) -> Accounts:
    return Accounts(clock, Memory(100_000, 50_000), ADDRESS, max_addresses=3)


@pytest.mark.parametrize("used", [{"processor": 0.3}, {"frames": 300}, {"size": 3_000}])
def test_a_connection_that_has_used_more_than_its_burst_waits_for_it(
    accounts: Accounts, clock: Clock, used: dict[str, int]
) -> None:
    budget = Budget(accounts, None, TARIFF)
    assert budget.wait() == 0
    budget.spend(**used)
    assert budget.wait() == pytest.approx(1)
    clock.now += 0.75
    assert budget.wait() == pytest.approx(0.25)
    clock.now += 0.25
    assert budget.wait() == pytest.approx(0)


def test_uses_of_all_kinds_add_up(accounts: Accounts) -> None:
    budget = Budget(accounts, None, TARIFF)
    budget.spend(processor=0.1, frames=100, size=1_000)
    assert budget.wait() == pytest.approx(1)


def test_neither_more_connections_nor_new_ones_get_an_address_more(accounts: Accounts) -> None:
    for _ in range(4):
        Budget(accounts, "10.0.0.1", TARIFF).spend(processor=0.15)
    assert Budget(accounts, "10.0.0.1", TARIFF).wait() == pytest.approx(1)
    assert accounts.wait("10.0.0.1") == pytest.approx(1)
    assert Budget(accounts, "10.0.0.2", TARIFF).wait() == 0


def test_whoever_is_behind_a_proxy_pays_once_known(accounts: Accounts) -> None:
    budget = Budget(accounts, None, TARIFF)
    budget.hold(10_000)
    budget.spend(processor=5)
    assert len(accounts) == 0
    budget.charge_to("10.0.0.7")
    assert not accounts.memory.has_room("10.0.0.7", 50_000)
    budget.spend(processor=5)
    assert accounts.wait("10.0.0.7") > 0


def test_what_is_unfinished_is_bounded_for_an_address_and_in_all(accounts: Accounts) -> None:
    free = Budget.FREE_BYTES
    budgets = [Budget(accounts, f"10.0.0.{number // 2}", TARIFF) for number in range(6)]
    assert budgets[0].hold(30_000 + free)
    assert not budgets[1].hold(30_000 + free)  # the address
    assert budgets[1].hold(20_000 + free)
    assert budgets[2].hold(50_000 + free)
    assert not budgets[4].hold(1 + free)  # in all
    assert budgets[4].hold(free)  # small things always find room
    assert budgets[2].hold(10_000 + free)
    assert budgets[4].hold(40_000 + free)
    for budget in budgets:
        budget.hold(0)
    assert accounts.memory.total == 0


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 60_000)), max_size=60))
def test_memory_counts_what_is_held_and_never_more_than_it_may(steps: list[tuple[int, int]]) -> None:
    memory = Memory(100_000, 50_000)
    accounts = Accounts(Clock(), memory)
    budgets = [Budget(accounts, f"10.0.0.{number // 2}") for number in range(6)]
    held = [0] * 6
    for index, size in steps:
        if budgets[index].hold(size):
            held[index] = max(0, size - Budget.FREE_BYTES)
        assert memory.total == sum(held) <= 100_000
        assert all(held[number] + held[number + 1] <= 50_000 for number in (0, 2, 4))


def test_what_comes_must_come_at_a_least_rate() -> None:
    pace = Pace(100.0, 10, bytes_per_second=1_000)
    assert pace.deadline(0) == 110
    assert pace.deadline(5_000) == 115


def test_what_all_have_used_of_the_processor_is_counted(accounts: Accounts) -> None:
    accounts.spend("10.0.0.1", processor=1.0)
    Budget(accounts, "10.0.0.2").spend(processor=0.5)
    assert accounts.processor == pytest.approx(1.5)


def test_what_goes_on_to_the_broker_costs_sixteen_times_what_is_read() -> None:
    accounts = Accounts(lambda: 0.0, tariff=Tariff(processor=1.0, frames=1_000, size=1_024, burst_seconds=31.0))
    accounts.spend("10.0.0.1", size=1_024)
    accounts.relay("10.0.0.1", 1_024)
    assert accounts.wait("10.0.0.1") == 0
    accounts.spend("10.0.0.1", size=512)
    assert accounts.wait("10.0.0.1") == pytest.approx(0.5)
