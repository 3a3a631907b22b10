"""The key, and what is signed with it."""

import stat
import threading
from pathlib import Path

import pytest

from dermdistill.errors import ConfigError, OutputError
from dermdistill.review.links import KEY_FILE, SESSION_SECONDS, Links, read_key

LINKS = Links(b"k" * 32)


def test_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    key = read_key(tmp_path)
    assert len(key) == 32 and read_key(tmp_path) == key
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEY_FILE]


def test_key_of_servers_that_start_at_once_is_the_same(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"x" * 32)
    (tmp_path / KEY_FILE).chmod(0o600)
    from dermdistill.review import links

    links._make_key(tmp_path / KEY_FILE)  # the other server was first
    assert read_key(tmp_path) == b"x" * 32


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660])
def test_key_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    read_key(tmp_path)
    (tmp_path / KEY_FILE).chmod(mode)
    with pytest.raises(ConfigError, match="others may read it"):
        read_key(tmp_path)


def test_damaged_key_is_refused(tmp_path: Path) -> None:
    read_key(tmp_path)
    (tmp_path / KEY_FILE).write_bytes(b"short")
    with pytest.raises(ConfigError, match="5 bytes"):
        read_key(tmp_path)


def test_key_where_no_folder_can_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        read_key(tmp_path / "file")


def test_link_of_another_key_is_not_ours() -> None:
    assert LINKS.read_rater_token(LINKS.rater_token(7, 2)) == (7, 2)
    assert Links(b"o" * 32).read_rater_token(LINKS.rater_token(7, 2)) is None
    assert Links(b"o" * 32).tag != LINKS.tag


def test_one_kind_of_secret_is_no_other() -> None:
    visit, cookie = LINKS.open_session("rater", 7, 1)
    tokens = [LINKS.rater_token(7, 1), LINKS.admin_token(), cookie, LINKS.form_token(visit)]
    assert [LINKS.read_rater_token(token) is not None for token in tokens] == [True, False, False, False]
    assert [LINKS.is_admin_token(token) for token in tokens] == [False, True, False, False]
    assert [LINKS.read_session("rater", token) is not None for token in tokens] == [False, False, True, False]
    assert LINKS.read_session("admin", cookie) is None


def test_sessions_of_one_rater_have_tokens_of_their_own() -> None:
    one, _ = LINKS.open_session("rater", 7, 1)
    other, _ = LINKS.open_session("rater", 7, 1)
    assert LINKS.is_form_token(one, LINKS.form_token(one))
    assert not LINKS.is_form_token(one, LINKS.form_token(other))


@pytest.mark.parametrize("kind", ["rater", "admin"])
def test_session_ends(kind, monkeypatch: pytest.MonkeyPatch) -> None:
    from itsdangerous import timed

    _, cookie = LINKS.open_session(kind, 1, 1)
    begun = timed.time.time()
    monkeypatch.setattr(timed.time, "time", lambda: begun + SESSION_SECONDS[kind] - 5)
    assert LINKS.read_session(kind, cookie) is not None
    monkeypatch.setattr(timed.time, "time", lambda: begun + SESSION_SECONDS[kind] + 5)
    assert LINKS.read_session(kind, cookie) is None


def test_keys_made_in_many_threads_are_one(tmp_path: Path) -> None:
    keys: list[bytes] = []
    threads = [threading.Thread(target=lambda: keys.append(read_key(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8 and len(set(keys)) == 1
