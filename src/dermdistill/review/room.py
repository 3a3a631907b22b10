"""The reading room: one study with its database, links and limits, and who is asking in a request."""

import math
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from fastapi import HTTPException, Request, Response

from dermdistill.review.database import Database
from dermdistill.review.limits import Buckets, Limits, client_key
from dermdistill.review.links import SESSION_SECONDS, Kind, Links, Visit
from dermdistill.review.pictures import bare, coloured, heat_palette
from dermdistill.review.study import Study, map_path, order_for, picture_path


@dataclass(frozen=True)
class Room:
    """What every request needs.

    Args:
        folder: of the study.
        study: read from it.
        database: of the answers.
        links: signed with the study's key.
        address: under which raters reach the server, such as ``https://review.example.org``, without a last slash.
        limits: of requests.
    """

    folder: Path
    study: Study
    database: Database
    links: Links
    address: str
    limits: Limits = field(default_factory=Limits)

    @cached_property
    def _by_link(self) -> Buckets:
        return Buckets(self.limits.link)

    @cached_property
    def _strangers(self) -> Buckets:
        return Buckets(self.limits.stranger)

    @cached_property
    def _orders(self) -> dict[int, tuple[str, ...]]:
        return {}

    @cached_property
    def _palette(self) -> bytes:
        return heat_palette()

    @property
    def secure(self) -> bool:
        """Whether raters come by https."""
        return urlsplit(self.address).scheme == "https"

    def order(self, index: int) -> tuple[str, ...]:
        """The items in the order of one rater."""
        if index not in self._orders:
            self._orders[index] = tuple(order_for(self.study, index))
        return self._orders[index]

    def picture(self, item: str) -> bytes:
        """The picture of an item, a PNG file of pixels alone."""
        return bare(picture_path(self.folder, item).read_bytes())

    def heat(self, item: str) -> bytes:
        """The heat map of an item in colour, a PNG file of pixels alone."""
        return coloured(map_path(self.folder, item).read_bytes(), self._palette)

    def rater_link(self, rater_id: int, version: int) -> str:
        """The personal link of a rater."""
        return f"{self.address}/r/{self.links.rater_token(rater_id, version)}"

    def admin_link(self) -> str:
        """A link to the admin page, valid for a day."""
        return f"{self.address}/admin/open/{self.links.admin_token()}"

    def cookie_name(self, kind: Kind) -> str:
        """Of this study's sessions."""
        return f"review_{kind}_{self.links.tag}"

    def set_cookie(self, response: Response, kind: Kind, value: str) -> None:
        """Give the browser its session; no script sees it and no other site can use it."""
        response.set_cookie(
            self.cookie_name(kind),
            value,
            max_age=SESSION_SECONDS[kind],
            path="/admin" if kind == "admin" else "/",
            secure=self.secure,
            httponly=True,
            samesite="strict",
        )

    def stranger(self, request: Request) -> None:
        """Count a request that shows no session.

        Raises:
            HTTPException: 429 where there were too many.
        """
        _wait(self._strangers.take(client_key(request.client.host if request.client else "")))

    def visit(self, request: Request, kind: Kind) -> Visit:
        """Whose session a request belongs to.

        Raises:
            HTTPException: 401 without a session, 429 after too many requests.
        """
        found = self.links.read_session(kind, request.cookies.get(self.cookie_name(kind)))
        if found is None:
            self.stranger(request)
            raise HTTPException(401)
        _wait(self._by_link.take(f"{kind} {found.rater_id}"))
        return found

    def writing_visit(self, request: Request, kind: Kind, form: dict[str, str]) -> Visit:
        """The same for a form, which must come from a page of the session.

        Raises:
            HTTPException: as ``visit``, and 403 for a form of elsewhere.
        """
        found = self.visit(request, kind)
        if not self.links.is_form_token(found, form.get("csrf", "")):
            raise HTTPException(403, "This form is too old, or of another session. Load the page again.")
        return found


def _wait(seconds: float) -> None:
    if seconds:
        raise HTTPException(429, headers={"retry-after": str(math.ceil(seconds))})


def room_of(request: Request) -> Room:
    """The room that a request came to."""
    return cast(Room, request.app.state.room)
