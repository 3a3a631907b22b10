"""The web application of one study."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Final

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from sqlalchemy import URL
from starlette.exceptions import HTTPException as AnyHttpException
from starlette.types import ASGIApp

from dermdistill.review import admin, rating
from dermdistill.review.answers import NotHere, RaterGone
from dermdistill.review.database import study_database
from dermdistill.review.limits import Limits
from dermdistill.review.links import Links, read_key
from dermdistill.review.pages import MESSAGES, prepare, render, static_files
from dermdistill.review.room import Room, room_of
from dermdistill.review.security import Guard
from dermdistill.review.study import read_study

STATIC_CACHE: Final = "public, max-age=300"


def open_room(folder: Path, url: URL, address: str, *, limits: Limits | None = None) -> Room:
    """Read a study and open its database and key.

    Args:
        folder: of ``review create``.
        url: of ``database_url``.
        address: under which raters reach the server; links begin with it.
        limits: of requests; None takes the defaults.

    Raises:
        DataError: no study, or a damaged one.
        ConfigError: a database or key that cannot be used.
        OutputError: the folder cannot be written.
    """
    study = read_study(folder)
    links = Links(read_key(folder))
    return Room(folder, study, study_database(folder, study, url), links, address.rstrip("/"), limits or Limits())


def create_app(room: Room, *, hosts: Iterable[str]) -> ASGIApp:
    """The application of a room.

    Args:
        room: is closed when the application shuts down.
        hosts: values of the Host header that it answers to.
    """
    app = FastAPI(
        title="review", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, lifespan=_lifespan
    )
    app.state.room = room
    app.state.static = static_files()
    prepare()
    app.include_router(rating.router)
    app.include_router(admin.router)
    app.add_api_route("/static/{name}", _static)
    app.add_exception_handler(AnyHttpException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_bad_path)
    app.add_exception_handler(NotHere, _on_not_here)
    app.add_exception_handler(RaterGone, _on_gone)
    app.add_exception_handler(Exception, _on_fault)
    # Around all else, so that its headers are on the page of a fault too.
    return Guard(app, hosts=hosts, limit=room.limits.client)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.room.database.close()


async def _static(request: Request, name: str) -> Response:
    found = request.app.state.static.get(name)
    if found is None:
        raise HTTPException(404)
    content, kind = found
    return Response(content, media_type=kind, headers={"cache-control": STATIC_CACHE})


def _message(request: Request, status: int, text: str = "", headers: dict[str, str] | None = None) -> Response:
    title, usual = MESSAGES.get(status, MESSAGES[400])
    back = "/admin" if request.url.path.startswith("/admin") else "/item"
    page = render(
        "message",
        title=room_of(request).study.title,
        heading=title,
        text=text or usual,
        back=back if status in (409, 500) else "",
    )
    return HTMLResponse(page, status, headers)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, AnyHttpException)
    own = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
    return _message(request, error.status_code, own, dict(error.headers or {}))


async def _on_bad_path(request: Request, error: Exception) -> Response:
    return _message(request, 404)


async def _on_not_here(request: Request, error: Exception) -> Response:
    return _message(request, 409, f"{str(error)[:1].upper()}{str(error)[1:]}.")


async def _on_gone(request: Request, error: Exception) -> Response:
    return _message(request, 403)


async def _on_fault(request: Request, error: Exception) -> Response:
    """Nothing of a fault reaches the browser; the server's log has it."""
    return _message(request, 500)
