"""What attackers try, and what every response carries."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from dermdistill.review.limits import Limit, Limits
from dermdistill.review.security import HEADERS, MOST_BODY_BYTES
from dermdistill.review.tables import Answer

PAGES = ("/", "/item", "/item/1", "/done", "/admin", "/admin/answers.csv", "/static/review.js", "/nowhere", "/item/x")


@pytest.mark.parametrize("path", PAGES)
def test_every_response_carries_the_headers(server: Any, path: str) -> None:
    headers = server.browser().get(path).headers
    for name, value in HEADERS.items():
        assert headers[name] == value
    assert headers["cache-control"] == ("public, max-age=300" if path.startswith("/static") else "no-store")


def test_policy_lets_nothing_inline_or_foreign_run() -> None:
    policy = dict(part.split(" ", 1) for part in HEADERS["content-security-policy"].split("; "))
    assert policy.pop("default-src") == policy.pop("base-uri") == policy.pop("frame-ancestors") == "'none'"
    assert set(policy.values()) == {"'self'"}


@pytest.mark.parametrize("path", [path for path in PAGES if not path.startswith(("/static", "/nowhere", "/item/x"))])
def test_pages_without_a_session_are_closed(server: Any, path: str) -> None:
    answered = server.browser().get(path)
    assert answered.status_code == 401 and "personal link" in answered.text


def test_rater_s_session_does_not_open_the_admin_pages(server: Any) -> None:
    browser = server.rater("R1")
    name, value = next(iter(browser.cookies.items()))
    forged = server.browser(cookies={name.replace("rater", "admin"): value})
    for path in ("/admin", "/admin/answers.csv", "/admin/audit.csv", "/admin/raters/1/erase"):
        assert browser.get(path).status_code == forged.get(path).status_code == 401
    assert browser.get(f"/admin/open/{server.room.links.rater_token(1, 1)}").status_code == 403
    assert server.browser().get(f"/r/{server.room.links.admin_token()}").status_code == 403


@pytest.mark.parametrize("token", ["", "0", "f" * 64, "ü"])
@pytest.mark.parametrize("path", ["/item/1/first", "/item/1/second", "/item/1/draft"])
def test_form_without_the_session_s_token_is_refused(server: Any, path: str, token: str) -> None:
    browser = server.rater("R1")
    form = {"csrf": token, "step": "first", "before": "nv", **browser.ratings}
    assert browser.post(path, data=form).status_code == 403
    with server.room.database.reading() as session:
        assert session.scalars(select(Answer)).all() == []


@pytest.mark.parametrize("path", ["/admin/raters", "/admin/raters/1/link", "/admin/raters/1/erase"])
def test_admin_form_without_the_session_s_token_is_refused(server: Any, path: str) -> None:
    rater = server.rater("R1")
    token = rater.token_in(rater.get("/item/1").text)
    assert server.admin().post(path, data={"csrf": token, "labels": "R2", "label": "R1"}).status_code == 403
    assert rater.get("/item/1").status_code == 200


def test_token_of_another_session_of_the_same_rater_is_refused(server: Any) -> None:
    one = server.rater("R1")
    other = server.browser()
    other.get(server.room.rater_link(one.rater.id, 1))
    token = other.token_in(other.get("/item/1").text)
    assert one.post("/item/1/first", data={"csrf": token, "before": "nv"}).status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_form_that_another_site_sends_is_refused(server: Any, site: str) -> None:
    browser = server.rater("R1")
    form = {"csrf": browser.token_in(browser.get("/item/1").text), "before": "nv"}
    assert browser.post("/item/1/first", data=form, headers={"sec-fetch-site": site}).status_code == 403
    assert browser.post("/item/1/first", data=form, headers={"sec-fetch-site": "same-origin"}).status_code == 303


@pytest.mark.parametrize("host", ["evil.example", "testserver.evil.example", "testserver:81", "", "localhost"])
def test_other_host_is_refused(server: Any, host: str) -> None:
    assert server.browser().get("/static/review.css", headers={"host": host}).status_code == 400


def test_known_host_is_answered_in_any_case(server: Any) -> None:
    assert server.browser().get("/static/review.css", headers={"host": "TestServer"}).status_code == 200


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_other_methods_are_refused(server: Any, method: str) -> None:
    assert server.rater("R1").request(method, "/item/1").status_code == 405


def test_files_and_other_kinds_of_body_are_refused(server: Any) -> None:
    browser = server.rater("R1")
    token = browser.token_in(browser.get("/item/1").text)
    upload = browser.post("/item/1/first", data={"csrf": token, "before": "nv"}, files={"x": b"file"})
    assert upload.status_code == 415
    assert browser.post("/item/1/first", json={"csrf": token, "before": "nv"}).status_code == 415


def test_large_body_is_refused_by_its_header_and_without_one(server: Any) -> None:
    browser = server.rater("R1")
    kind = {"content-type": "application/x-www-form-urlencoded"}
    large = b"comment=" + b"x" * MOST_BODY_BYTES
    assert browser.post("/item/1/draft", content=large, headers=kind).status_code == 413
    chunks = (large[start : start + 9000] for start in range(0, len(large), 9000))
    assert browser.post("/item/1/draft", content=chunks, headers=kind).status_code == 413
    assert browser.post("/item/1/draft", content=b"", headers={**kind, "content-length": "-1"}).status_code == 413


@pytest.mark.parametrize(
    "body",
    [
        b"before=nv&before=mel",
        b"before=nv&is_admin=1",
        b"before=%ff",
        b"before",
        b"&".join(b"a%d=1" % place for place in range(200)),
        b"\xff\xfe=1",
    ],
)
def test_form_with_anything_but_known_fields_once_is_refused(server: Any, body: bytes) -> None:
    kind = {"content-type": "application/x-www-form-urlencoded"}
    assert server.rater("R1").post("/item/1/first", content=body, headers=kind).status_code == 400


def test_link_that_was_altered_or_made_up_is_refused(server: Any) -> None:
    [rater] = server.raters("R1")
    token = server.room.links.rater_token(rater.id, 1)
    forged = [token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :] for place in range(0, 40, 3)]
    for wrong in [*forged, token + "A", "x" * 5000, "%00", server.room.links.rater_token(99, 1)]:
        assert server.browser().get(f"/r/{wrong}").status_code in (403, 404)


def test_withdrawn_link_ends_its_sessions(server: Any) -> None:
    browser = server.rater("R1")
    page = browser.get("/item/1").text
    admin = server.admin()
    assert admin.send_form(f"/admin/raters/{browser.rater.id}/link", "/admin").status_code == 303
    assert browser.get("/item/1").status_code == 403
    assert browser.get("/item/1/image.png").status_code == 404
    assert browser.post("/item/1/first", data={"csrf": browser.token_in(page), "before": "nv"}).status_code == 403
    assert browser.get(server.room.rater_link(browser.rater.id, 1)).status_code == 403
    assert browser.get(server.room.rater_link(browser.rater.id, 2)).status_code == 200


def test_guessing_links_is_slowed_down(serve: Callable[..., Any]) -> None:
    server = serve(limits=Limits(stranger=Limit(0.01, 5)))
    browser = server.browser()
    statuses = [browser.get(f"/r/guess{number}").status_code for number in range(7)]
    assert statuses == [403] * 5 + [429] * 2
    assert browser.get("/item/1").status_code == 429
    assert int(browser.get("/r/guess").headers["retry-after"]) > 10


def test_one_link_is_limited_and_others_are_not(serve: Callable[..., Any]) -> None:
    server = serve(limits=Limits(link=Limit(0.01, 4)))
    one, other = server.rater("R1"), server.rater("R2")
    assert [one.get("/item/1").status_code for _ in range(6)] == [200] * 4 + [429] * 2
    assert "One moment" in one.get("/item/1").text
    assert other.get("/item/1").status_code == 200


def test_one_client_is_limited_whatever_it_asks(serve: Callable[..., Any]) -> None:
    browser = serve(limits=Limits(client=Limit(0.01, 3))).browser()
    statuses = [browser.get("/static/review.css").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]


def test_https_gives_secure_cookies(serve: Callable[..., Any]) -> None:
    server = serve(address="https://review.example.org")
    [rater] = server.raters("R1")
    link = server.room.rater_link(rater.id, 1)
    assert link.startswith("https://review.example.org/r/")
    answered = server.browser().get(link)
    assert "Secure" in answered.headers["set-cookie"]
    assert answered.headers["strict-transport-security"] == "max-age=31536000"


def test_script_in_names_and_comments_is_only_text(serve: Callable[..., Any]) -> None:
    server = serve()
    browser = server.rater("R1")
    browser.send_form("/item/1/first", before="nv")
    browser.send_form(
        "/item/1/draft", step="second", comment="</textarea><script>alert(1)</script>", region='"><script>'
    )
    page = browser.get("/item/1").text
    assert "<script>alert" not in page and '"><script>' not in page


def test_fault_of_the_server_tells_nothing(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("secret path")

    monkeypatch.setattr("dermdistill.review.answers.standing_of", broken)
    browser = server.browser(raise_server_exceptions=False)
    [rater] = server.raters("R1")
    answered = browser.get(server.room.rater_link(rater.id, 1))
    assert answered.status_code == 500 and "secret" not in answered.text
    assert answered.headers["content-security-policy"] == HEADERS["content-security-policy"]


def test_websocket_is_refused(server: Any) -> None:
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def take(message: Any) -> None:
        sent.append(message)

    asyncio.run(server.app({"type": "websocket", "path": "/"}, receive, take))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_interface_description_is_not_served(server: Any) -> None:
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert server.browser().get(path).status_code == 404
