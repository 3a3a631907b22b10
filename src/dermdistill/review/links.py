"""Signed personal links, the sessions that they open, and the token that every form of a session carries.

A link is a secret that names a rater and the version of the link, so it needs no table and can be withdrawn. Opening it
gives a session cookie. All of it is signed with one key, which lies beside the database for its owner alone.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from itsdangerous import BadData, URLSafeSerializer, URLSafeTimedSerializer

from dermdistill.atomic import make_folder
from dermdistill.errors import ConfigError, OutputError

KEY_FILE: Final = "review.key"
KEY_BYTES: Final = 32
SIGNED: Final[dict[str, Any]] = {"digest_method": hashlib.sha256, "key_derivation": "hmac"}
HOUR: Final = 3600
ADMIN_LINK_SECONDS: Final = 24 * HOUR
SESSION_SECONDS: Final = {"rater": 30 * 24 * HOUR, "admin": 12 * HOUR}
LONGEST_TOKEN: Final = 512
Kind = Literal["rater", "admin"]


@dataclass(frozen=True)
class Visit:
    """Whose session a request belongs to; ``rater_id`` and ``version`` are 0 for the admin."""

    kind: Kind
    rater_id: int
    version: int
    nonce: str


def read_key(folder: Path) -> bytes:
    """The signing key of a folder, made at the first call, readable by its owner alone.

    Raises:
        OutputError: it cannot be written.
        ConfigError: it is damaged, or others may read it.
    """
    path = make_folder(folder) / KEY_FILE
    try:
        if not path.exists():
            _make_key(path)
        with path.open("rb") as handle:
            rights, key = os.fstat(handle.fileno()).st_mode, handle.read()
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be made or read ({error.strerror})", rule="the study's folder must be writable"
        ) from error
    if stat.S_IMODE(rights) & 0o077:
        raise ConfigError(
            f"{path}: others may read it (mode {stat.S_IMODE(rights):o})",
            rule="whoever has this key can answer in anybody's name",
            next_step=f"delete it, so that a new one is made (old links end), or say `chmod 600 {path.name}`",
        )
    if len(key) != KEY_BYTES:
        raise ConfigError(f"{path}: {len(key)} bytes, not {KEY_BYTES}", next_step="delete it, and hand out new links")
    return key


def _make_key(path: Path) -> None:
    """Whole or not at all, and never in place of a key that another server has just made."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
    descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(secrets.token_bytes(KEY_BYTES))
            handle.flush()
            os.fsync(handle.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class Links:
    """Makes and reads what is signed with one key.

    Args:
        key: secret bytes.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key
        self._rater_links = URLSafeSerializer(key, salt="rater link", signer_kwargs=SIGNED)
        self._admin_links = URLSafeTimedSerializer(key, salt="admin link", signer_kwargs=SIGNED)
        self._sessions = URLSafeTimedSerializer(key, salt="session", signer_kwargs=SIGNED)
        # Cookies do not know ports: two studies on one machine must not take each other's.
        self.tag = hmac.digest(key, b"cookie name", "sha256").hex()[:8]

    def rater_token(self, rater_id: int, version: int) -> str:
        """The secret of a rater's link."""
        return str(self._rater_links.dumps([rater_id, version]))

    def read_rater_token(self, token: str) -> tuple[int, int] | None:
        """Rater and version of a link; None where it is not ours."""
        return _two_numbers(self._rater_links, token)

    def admin_token(self) -> str:
        """The secret of an admin link that is valid for a day."""
        return str(self._admin_links.dumps("admin"))

    def is_admin_token(self, token: str) -> bool:
        """Whether an admin link is ours and not too old."""
        if len(token) > LONGEST_TOKEN:
            return False
        try:
            return bool(self._admin_links.loads(token, max_age=ADMIN_LINK_SECONDS) == "admin")
        except BadData:
            return False

    def open_session(self, kind: Kind, rater_id: int = 0, version: int = 0) -> tuple[Visit, str]:
        """A new session and the value of its cookie."""
        visit = Visit(kind, rater_id, version, secrets.token_urlsafe(16))
        return visit, str(self._sessions.dumps([kind, rater_id, version, visit.nonce]))

    def read_session(self, kind: Kind, cookie: str | None) -> Visit | None:
        """The session of a cookie; None where it is not ours, of another kind, or too old."""
        if not cookie or len(cookie) > LONGEST_TOKEN:
            return None
        try:
            found = self._sessions.loads(cookie, max_age=SESSION_SECONDS[kind])
        except BadData:
            return None
        return Visit(*found) if found[0] == kind else None

    def form_token(self, visit: Visit) -> str:
        """What every form of a session carries and no other site can know."""
        words = f"form {visit.kind} {visit.rater_id} {visit.version} {visit.nonce}"
        return hmac.digest(self._key, words.encode(), "sha256").hex()

    def is_form_token(self, visit: Visit, given: str) -> bool:
        """Whether a form came from a page of this session."""
        return hmac.compare_digest(self.form_token(visit).encode(), given.encode())


def _two_numbers(serializer: URLSafeSerializer, token: str) -> tuple[int, int] | None:
    if len(token) > LONGEST_TOKEN:
        return None
    try:
        first, second = serializer.loads(token)
    except BadData:
        return None
    return int(first), int(second)
