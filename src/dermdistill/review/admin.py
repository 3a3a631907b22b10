"""The pages of whoever runs the study: progress, links, export, and erasing one rater's data."""

from typing import Annotated, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dermdistill.errors import ConfigError
from dermdistill.review.audit import note
from dermdistill.review.export import answers_csv, audit_csv
from dermdistill.review.forms import read_form
from dermdistill.review.links import Visit
from dermdistill.review.pages import render
from dermdistill.review.raters import ADMIN, Progress, erase, make_raters, progress, renew_link
from dermdistill.review.room import Room, room_of

Form = Annotated[dict[str, str], Depends(read_form)]
SEE_OTHER: Final = 303

router = APIRouter(prefix="/admin", default_response_class=HTMLResponse)


@router.get("/open/{token}")
def open_admin(request: Request, token: str) -> Response:
    """Begin an admin session."""
    room = room_of(request)
    room.stranger(request)
    if not room.links.is_admin_token(token):
        raise HTTPException(
            403, "This admin link is not valid or older than a day. The server prints one as it starts."
        )
    visit, cookie = room.links.open_session("admin")
    response = _page(room, visit)
    room.set_cookie(response, "admin", cookie)
    return response


@router.get("")
def overview(request: Request) -> Response:
    """Progress and links."""
    room = room_of(request)
    return _page(room, room.visit(request, "admin"))


@router.post("/raters")
def add_raters(request: Request, form: Form) -> Response:
    """Make raters by their names, one a line."""
    room = room_of(request)
    visit = room.writing_visit(request, "admin", form)
    labels = [line.strip() for line in form.get("labels", "").splitlines() if line.strip()]
    simulated = form.get("simulated") == "yes"
    try:
        room.database.writer.write(lambda session: make_raters(session, labels, simulated=simulated))
    except ConfigError as error:
        return _page(room, visit, typed=form.get("labels", ""), fault=error.problem)
    return RedirectResponse("/admin", SEE_OTHER)


@router.post("/raters/{rater_id}/link")
def new_link(request: Request, rater_id: int, form: Form) -> Response:
    """Withdraw a link; the page shows the new one."""
    room = room_of(request)
    room.writing_visit(request, "admin", form)
    room.database.writer.write(lambda session: renew_link(session, rater_id))
    return RedirectResponse("/admin", SEE_OTHER)


@router.get("/raters/{rater_id}/erase")
def ask_to_erase(request: Request, rater_id: int) -> Response:
    """Ask before anything is deleted."""
    room = room_of(request)
    visit = room.visit(request, "admin")
    return _erase_page(room, visit, _one(room, rater_id))


@router.post("/raters/{rater_id}/erase")
def erase_rater(request: Request, rater_id: int, form: Form) -> Response:
    """Delete one rater's data, where the name was typed."""
    room = room_of(request)
    visit = room.writing_visit(request, "admin", form)
    rater = _one(room, rater_id)
    if form.get("label", "").strip() != rater.label:
        return _erase_page(room, visit, rater, fault="This is not the rater's name.")
    room.database.writer.write(lambda session: erase(session, rater_id))
    room.database.settle()
    return RedirectResponse("/admin", SEE_OTHER)


@router.get("/answers.csv")
def answers_file(request: Request) -> Response:
    """All whole answers."""
    room = room_of(request)
    room.visit(request, "admin")
    room.database.writer.write(lambda session: note(session.connection(), ADMIN, "answers exported"))
    with room.database.reading() as session:
        return _download(answers_csv(session), "answers.csv")


@router.get("/audit.csv")
def audit_file(request: Request) -> Response:
    """The audit trail."""
    room = room_of(request)
    room.visit(request, "admin")
    with room.database.reading() as session:
        return _download(audit_csv(session), "audit.csv")


def _one(room: Room, rater_id: int) -> Progress:
    with room.database.reading() as session:
        found = [rater for rater in progress(session) if rater.id == rater_id]
    if not found:
        raise HTTPException(404)
    return found[0]


def _page(room: Room, visit: Visit, *, typed: str = "", fault: str = "") -> Response:
    with room.database.reading() as session:
        raters = progress(session)
    context = {
        "title": room.study.title,
        "total": len(room.study.items),
        "raters": [(rater, room.rater_link(rater.id, rater.link_version)) for rater in raters],
        "answered": sum(rater.answered for rater in raters),
        "simulated": sum(rater.simulated for rater in raters),
        "csrf": room.links.form_token(visit),
        "typed": typed,
        "fault": fault,
    }
    return HTMLResponse(render("admin", **context), 422 if fault else 200)


def _erase_page(room: Room, visit: Visit, rater: Progress, *, fault: str = "") -> Response:
    context = {"title": room.study.title, "rater": rater, "csrf": room.links.form_token(visit), "fault": fault}
    return HTMLResponse(render("erase", **context), 422 if fault else 200)


def _download(content: bytes, name: str) -> Response:
    return Response(
        content, media_type="text/csv; charset=utf-8", headers={"content-disposition": f'attachment; filename="{name}"'}
    )
