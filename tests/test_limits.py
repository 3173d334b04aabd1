"""Connections and refusals."""

from __future__ import annotations

import pytest

from gateway.access.limits import Connections, LimitError, Refusals, User, network_of

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


def test_a_user_counts_as_an_address_that_nobody_else_has() -> None:
    connections = Connections(10, 1, is_shared=lambda _: True)
    keys = [
        connections.open(client) for client in (User("10.0.0.1"), "10.0.0.1", User("local"), "local", "user 'local'")
    ]
    assert len(set(keys)) == 4
    assert network_of(User("x" * 256)) == network_of(User("x" * 5_000))
    # also behind a proxy that many share
    with pytest.raises(LimitError, match=r"1 connections are open from user 'local', at most 1"):
        connections.open(User("local"))


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
