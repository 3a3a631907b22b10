"""Rate limits: a bucket a client or link, which every request takes one from and which fills up again with time."""

import ipaddress
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

MOST_KEYS: Final = 10_000


@dataclass(frozen=True)
class Limit:
    """``burst`` requests at once, and ``per_second`` on average."""

    per_second: float
    burst: int


@dataclass(frozen=True)
class Limits:
    """Of the server.

    Args:
        client: all requests of one address; a clinic's raters may share one.
        stranger: requests of one address without a valid session, so that links cannot be guessed.
        link: requests with one link's session.
    """

    client: Limit = Limit(50, 500)
    stranger: Limit = Limit(1, 60)
    link: Limit = Limit(10, 120)


class Buckets:
    """One bucket a key, full at first.

    Args:
        limit: of each.
        clock: seconds, never going back.
    """

    def __init__(self, limit: Limit, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._levels: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def take(self, key: str) -> float:
        """Take one; 0 where there was one, else the seconds until there will be."""
        moment = self._clock()
        with self._lock:
            level, since = self._levels.get(key, (float(self._limit.burst), moment))
            level = min(self._limit.burst, level + (moment - since) * self._limit.per_second)
            allowed = level >= 1
            self._levels[key] = (level - 1 if allowed else level, moment)
            if len(self._levels) > MOST_KEYS:
                self._forget(moment)
        return 0.0 if allowed else (1 - level) / self._limit.per_second

    def _forget(self, moment: float) -> None:
        """Buckets that are full again say nothing; where that is not enough, the ones touched longest ago go too."""
        full = self._limit.burst / self._limit.per_second
        recent = {key: held for key, held in self._levels.items() if moment - held[1] < full}
        newest = sorted(recent.items(), key=lambda entry: entry[1][1])[-MOST_KEYS // 2 :]
        self._levels = dict(newest)


def client_key(host: str) -> str:
    """The address that a limit counts by: one IPv4 address, or the /64 that one IPv6 customer gets."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)
