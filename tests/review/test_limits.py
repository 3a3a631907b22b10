"""Buckets that empty and fill again."""

import pytest

from dermdistill.review.limits import MOST_KEYS, Buckets, Limit, client_key


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_burst_is_allowed_and_then_the_rate() -> None:
    clock = Clock()
    buckets = Buckets(Limit(2, 3), clock)
    assert [buckets.take("a") for _ in range(5)] == [0, 0, 0, 0.5, 0.5]
    clock.now += 0.5
    assert [buckets.take("a") for _ in range(2)] == [0, 0.5]


def test_bucket_never_holds_more_than_the_burst() -> None:
    clock = Clock()
    buckets = Buckets(Limit(2, 3), clock)
    buckets.take("a")
    clock.now += 1000
    assert [buckets.take("a") == 0 for _ in range(4)] == [True, True, True, False]


def test_keys_have_buckets_of_their_own() -> None:
    buckets = Buckets(Limit(1, 1), Clock())
    assert buckets.take("a") == buckets.take("b") == 0
    assert buckets.take("a") > 0


def test_memory_is_bounded_and_the_latest_are_kept() -> None:
    clock = Clock()
    buckets = Buckets(Limit(0.001, 1), clock)
    for number in range(MOST_KEYS + 500):
        clock.now += 0.001
        buckets.take(str(number))
    assert len(buckets._levels) <= MOST_KEYS
    assert buckets.take(str(MOST_KEYS + 499)) > 0


@pytest.mark.parametrize(
    ("host", "key"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("fe80::1%eth0", "fe80::/64"),
        ("testclient", "testclient"),
        ("", ""),
    ],
)
def test_client_counts_by_what_one_customer_gets(host: str, key: str) -> None:
    assert client_key(host) == key
