"""Rates, connections and failed attempts, on a clock of the test's own."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access.limits import Attempts, Connections, LimitError, Refusals, TokenBucket, network_of

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


# Connections


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", "local"),
        (None, "local"),
        ("unix:", "local"),
        ("1.2.3.4, 5.6.7.8", "local"),
    ],
)
def test_one_customer_is_one_address(address: str | None, network: str) -> None:
    assert network_of(address) == network


def test_one_address_cannot_take_all_connections() -> None:
    connections = Connections(10, 3)
    keys = [connections.open("10.0.0.1") for _ in range(3)]
    with pytest.raises(LimitError, match=r"3 connections are open from .*, at most 3 are allowed") as caught:
        connections.open("::ffff:10.0.0.1")
    assert (caught.value.code, caught.value.limit) == ("too_many_connections", "limit_connections_per_address")
    connections.open("10.0.0.2")
    connections.close(keys[0])
    connections.open("10.0.0.1")
    assert connections.of("10.0.0.1") == 3
    assert connections.total == 4


def test_there_is_a_limit_in_all() -> None:
    connections = Connections(2, 2)
    connections.open("10.0.0.1")
    key = connections.open("10.0.0.2")
    with pytest.raises(LimitError, match="2 connections are open, at most 2") as caught:
        connections.open("10.0.0.3")
    assert caught.value.limit == "limit_connections"
    connections.close(key)
    connections.open("10.0.0.3")


def test_nothing_is_remembered_of_those_who_left_or_were_refused() -> None:
    connections = Connections(1, 1)
    key = connections.open("10.0.0.1")
    for number in range(100):
        with pytest.raises(LimitError):
            connections.open(f"10.0.1.{number}")
    assert len(connections) == 1
    connections.close(key)
    assert len(connections) == 0
    assert connections.total == 0


# Failed attempts


def test_a_few_failures_are_free_and_then_it_is_slow() -> None:
    attempts = Attempts(0.5, burst=3)
    for _ in range(3):
        assert attempts.wait("10.0.0.1", 0.0) == 0
        attempts.failed("10.0.0.1", 0.0)
    assert attempts.wait("10.0.0.1", 0.0) == pytest.approx(2)
    assert attempts.wait("10.0.0.2", 0.0) == 0
    assert attempts.wait("10.0.0.1", 2.0) == 0


def test_only_so_many_addresses_are_remembered_and_the_oldest_goes_first() -> None:
    attempts = Attempts(0.001, burst=1, max_addresses=3)
    for number in range(5):
        attempts.failed(f"10.0.0.{number}", float(number))
    assert len(attempts) == 3
    assert attempts.wait("10.0.0.0", 5.0) == 0
    assert attempts.wait("10.0.0.4", 5.0) > 0


def test_an_address_that_behaves_is_forgotten() -> None:
    attempts = Attempts(1, burst=1)
    attempts.failed("10.0.0.1", 0.0)
    attempts.failed("10.0.0.2", 100.0)
    assert len(attempts) == 1


def test_what_has_happened_already_is_owed() -> None:
    bucket = TokenBucket(10, burst=20)
    bucket.debit(0.0, 30)
    assert not bucket.take(0.9)
    assert bucket.take(1.1)
    attempts = Attempts(10, burst=20)
    attempts.debit("10.0.0.1", 0.0, 30)
    assert attempts.wait("10.0.0.1", 0.0) == pytest.approx(1.1)
    assert attempts.wait("10.0.0.2", 0.0) == 0


def test_refusals_are_counted_by_reason() -> None:
    refusals = Refusals()
    refusals.count("origin")
    refusals.count("origin")
    assert refusals.by_reason == {"origin": 2}


def test_an_address_of_many_clients_is_bounded_in_all_only() -> None:
    connections = Connections(4, 1, lambda address: address == "10.0.0.1")
    for _ in range(3):
        connections.open("10.0.0.1")
    connections.open("10.0.0.2")
    for address, limit in (("10.0.0.1", "limit_connections"), ("10.0.0.2", "limit_connections_per_address")):
        with pytest.raises(LimitError) as caught:
            connections.open(address)
        assert caught.value.limit == limit
