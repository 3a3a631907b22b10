"""The pages of a rater: welcome, the two steps of each item, its pictures, drafts, and the end."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from dermdistill.review import answers, steps
from dermdistill.review.answers import Place, RaterGone, Standing
from dermdistill.review.forms import STEP_FIELDS, draft_fields, first_faults, read_form, second_of
from dermdistill.review.links import Visit
from dermdistill.review.pages import class_name, model_answer, render, step_context
from dermdistill.review.room import Room, room_of
from dermdistill.review.steps import Turn

Form = Annotated[dict[str, str], Depends(read_form)]
SEE_OTHER: Final = 303

router = APIRouter(default_response_class=HTMLResponse)


@router.get("/r/{token}")
def open_link(request: Request, token: str) -> Response:
    """Begin a session and say what the study is.

    The page comes with the cookie, not a redirect: a browser that follows a link from a mail to a redirect would not
    send a cookie of the strict kind along.
    """
    room = room_of(request)
    room.stranger(request)
    found = room.links.read_rater_token(token)
    if found is None:
        raise HTTPException(403)
    visit, cookie = room.links.open_session("rater", *found)
    response = _welcome(room, visit)
    room.set_cookie(response, "rater", cookie)
    return response


@router.get("/")
def begin(request: Request) -> Response:
    """The welcome page once more."""
    room = room_of(request)
    return _welcome(room, room.visit(request, "rater"))


def _welcome(room: Room, visit: Visit) -> Response:
    return HTMLResponse(render("welcome", **_common(room, _standing(room, visit))))


@router.get("/item")
def next_item(request: Request) -> Response:
    """To the item that is due."""
    room = room_of(request)
    return _to(_standing(room, room.visit(request, "rater")).place)


@router.get("/item/{position}")
def item(request: Request, position: int) -> Response:
    """The step that is due of the item that is due; any other leads there."""
    room = room_of(request)
    visit = room.visit(request, "rater")
    with room.database.engine.connect() as connection:
        standing = answers.standing_of(connection, visit.rater_id, visit.version, room.order)
        place = standing.place
        if place.done or place.position != position:
            return _to(place)
        typed = answers.draft_of(connection, visit.rater_id, place.item)
    if typed is None:
        room.database.writer.write(lambda session: steps.show(session, _turn(room, visit, position)))
    return _step(room, visit, standing, typed or {}, {})


@router.get("/item/{position}/image.png")
def image(request: Request, position: int) -> Response:
    """The picture of the item that is due."""
    room = room_of(request)
    place = _due(room, request, position)
    return Response(room.picture(place.item), media_type="image/png")


@router.get("/item/{position}/map.png")
def heat_map(request: Request, position: int) -> Response:
    """Its heat map, once the first diagnosis is given."""
    room = room_of(request)
    place = _due(room, request, position)
    if not place.before:
        raise HTTPException(404)
    return Response(room.heat(place.item), media_type="image/png")


@router.post("/item/{position}/first")
def first(request: Request, position: int, form: Form) -> Response:
    """The diagnosis without the model."""
    room = room_of(request)
    visit = room.writing_visit(request, "rater", form)
    faults = first_faults(form, room.study.classes)
    if faults:
        return _again(room, visit, position, "first", form, faults)
    room.database.writer.write(lambda session: steps.give_first(session, _turn(room, visit, position), form["before"]))
    return RedirectResponse("/item", SEE_OTHER)


@router.post("/item/{position}/second")
def second(request: Request, position: int, form: Form) -> Response:
    """The diagnosis with the model, and the ratings."""
    room = room_of(request)
    visit = room.writing_visit(request, "rater", form)
    given, faults = second_of(form, room.study.classes)
    if given is None:
        return _again(room, visit, position, "second", form, faults)
    room.database.writer.write(lambda session: steps.give_second(session, _turn(room, visit, position), given))
    return RedirectResponse("/item", SEE_OTHER)


@router.post("/item/{position}/draft")
def draft(request: Request, position: int, form: Form) -> Response:
    """What was typed so far."""
    room = room_of(request)
    visit = room.writing_visit(request, "rater", form)
    step = form.get("step", "")
    if step not in STEP_FIELDS:
        raise HTTPException(400)
    fields = draft_fields(form, step)
    room.database.writer.write(lambda session: steps.keep_draft(session, _turn(room, visit, position), step, fields))
    return Response(status_code=204)


@router.get("/done")
def done(request: Request) -> Response:
    """The end."""
    room = room_of(request)
    standing = _standing(room, room.visit(request, "rater"))
    if not standing.place.done:
        return _to(standing.place)
    return HTMLResponse(render("done", **_common(room, standing)))


def _turn(room: Room, visit: Visit, position: int) -> Turn:
    return Turn(visit.rater_id, visit.version, room.order, position)


def _standing(room: Room, visit: Visit) -> Standing:
    with room.database.engine.connect() as connection:
        return answers.standing_of(connection, visit.rater_id, visit.version, room.order)


def _due(room: Room, request: Request, position: int) -> Place:
    """Pictures of other items, and of other studies, do not exist for this session."""
    try:
        place = _standing(room, room.visit(request, "rater")).place
    except RaterGone as error:
        raise HTTPException(404) from error
    if place.done or place.position != position:
        raise HTTPException(404)
    return place


def _to(place: Place) -> Response:
    return RedirectResponse("/done" if place.done else f"/item/{place.position}", SEE_OTHER)


def _again(
    room: Room, visit: Visit, position: int, step: str, form: dict[str, str], faults: dict[str, str]
) -> Response:
    """The same page with what was sent and what is missing; where that step is over, the one that is due."""
    standing = _standing(room, visit)
    place = standing.place
    if place.done or place.position != position or bool(place.before) is not (step == "second"):
        return _to(place)
    return _step(room, visit, standing, draft_fields(form, step), faults)


def _step(room: Room, visit: Visit, standing: Standing, typed: dict[str, str], faults: dict[str, str]) -> Response:
    classes, place = room.study.classes, standing.place
    context = {
        **_common(room, standing),
        **step_context(classes, typed, faults),
        "csrf": room.links.form_token(visit),
    }
    status = 422 if faults else 200
    if not place.before:
        return HTMLResponse(render("first", **context), status)
    shown = next(one for one in room.study.items if one.item == place.item)
    return HTMLResponse(
        render("second", before=class_name(place.before, classes), model=model_answer(shown, classes), **context),
        status,
    )


def _common(room: Room, standing: Standing) -> dict[str, Any]:
    return {
        "title": room.study.title,
        "rater": standing.label,
        "simulated": standing.simulated,
        "place": standing.place,
    }
