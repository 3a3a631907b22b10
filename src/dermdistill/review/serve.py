"""Serve a study: uvicorn on this machine alone, unless told otherwise, behind whatever gives it https."""

import contextlib
import sys
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import uvicorn

from dermdistill.errors import ConfigError
from dermdistill.review.app import create_app, open_room
from dermdistill.review.database import database_url
from dermdistill.review.limits import Limits

LOOPBACK: Final = "127.0.0.1"
PORT: Final = 8321
USUAL_PORTS: Final = {"http": 80, "https": 443}
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
MOST_CONNECTIONS: Final = 1000
# Longer than proxies keep theirs (60), and than most raters think: no request meets a connection that is being closed.
IDLE_SECONDS: Final = 75


def serve(
    study_folder: Path,
    database: str | None = None,
    host: str = LOOPBACK,
    port: int = PORT,
    *,
    public_url: str | None = None,
    limits: Limits | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Serve a study until interrupted.

    Args:
        study_folder: of ``review create``.
        database: URL of SQLite or PostgreSQL; None is a SQLite file in the study's folder.
        host: address to listen on; the default can be reached from this machine alone.
        port: to listen on.
        public_url: what raters type, such as ``https://review.example.org``, where a proxy on this machine hands
            requests on. Its name is then the only one that is answered beside those of this machine, cookies are for
            https alone where it is https, and the proxy's word on who asks is taken.
        limits: of requests; None takes the defaults.
        say: is given the lines for whoever started this, the admin link among them.

    Raises:
        ConfigError: a URL, address or database that cannot be used.
        DataError: no study, or a damaged one.
        OutputError: the study's folder cannot be written.
    """
    url = database_url(study_folder, database)
    address = public_address(host, port, public_url)
    room = open_room(study_folder, url, address, limits=limits)
    say(f"study: {room.study.title} ({len(room.study.items)} items)")
    say(f"database: {url.render_as_string(hide_password=True)}")
    say(f"admin page, for a day: {room.admin_link()}")
    say("Not for clinical use. Stop with Ctrl+C; answers are kept.")
    sys.stdout.flush()
    settings = uvicorn.Config(
        create_app(room, hosts=answered_hosts(host, port, address)),
        host=host,
        port=port,
        log_level="warning",
        access_log=False,  # addresses of pages hold the links' secrets
        server_header=False,
        proxy_headers=public_url is not None,
        forwarded_allow_ips=LOOPBACK,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=5,
    )
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has shut down and says once more why
        uvicorn.Server(settings).run()


def public_address(host: str, port: int, public_url: str | None) -> str:
    """What links begin with.

    Raises:
        ConfigError: not an address of http or https alone, or none where the server listens on all addresses.
    """
    if public_url is None:
        if _is_every_address(host):
            raise ConfigError(
                f"--host {host} listens on every address, and links need one name",
                rule="the name under which raters reach the server is known",
                next_step="say it with --public-url https://NAME, and let a proxy on this machine give it https",
            )
        return f"http://{_netloc(host, port, 'http')}"
    parts = urlsplit(public_url)
    if parts.scheme not in USUAL_PORTS or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        raise ConfigError(
            f"--public-url {public_url}: not an address", rule="https://NAME or http://NAME:PORT, without a path"
        )
    return f"{parts.scheme}://{parts.netloc.lower()}"


def answered_hosts(host: str, port: int, address: str) -> set[str]:
    """The Host headers that are answered: the public name, and this machine's own."""
    names = {name if port == USUAL_PORTS["http"] else f"{name}:{port}" for name in LOCAL_NAMES}
    return names | {urlsplit(address).netloc, _netloc(host, port, "http")}


def _netloc(host: str, port: int, scheme: str) -> str:
    name = f"[{host}]" if ":" in host else host
    return name if port == USUAL_PORTS[scheme] else f"{name}:{port}"


def _is_every_address(host: str) -> bool:
    try:
        return ip_address(host).is_unspecified
    except ValueError:
        return host == ""
