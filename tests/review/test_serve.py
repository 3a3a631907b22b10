"""The server as a process, and the addresses that it answers to."""

import pytest

from dermdistill.errors import ConfigError
from dermdistill.review.serve import answered_hosts, public_address


def test_address_on_this_machine_needs_nothing_said() -> None:
    assert public_address("127.0.0.1", 8321, None) == "http://127.0.0.1:8321"
    assert public_address("::1", 80, None) == "http://[::1]"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
def test_listening_everywhere_needs_a_name(host: str) -> None:
    with pytest.raises(ConfigError, match="one name"):
        public_address(host, 8321, None)
    assert public_address(host, 8321, "https://Review.example.org/") == "https://review.example.org"


@pytest.mark.parametrize(
    "url", ["review.example.org", "ftp://x", "https://", "https://x/path", "https://u:p@x", "https://x?y"]
)
def test_public_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="not an address"):
        public_address("127.0.0.1", 8321, url)


def test_hosts_are_the_public_name_and_this_machine() -> None:
    assert answered_hosts("127.0.0.1", 8321, "https://review.example.org") == {
        *("review.example.org", "localhost:8321", "127.0.0.1:8321", "[::1]:8321"),
    }
