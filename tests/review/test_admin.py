"""Whoever runs a study: links, progress, export, and erasing one rater."""

import csv
import io
import re
from typing import Any

import pytest
from sqlalchemy import select

from dermdistill.errors import ConfigError
from dermdistill.review.links import ADMIN_LINK_SECONDS
from dermdistill.review.raters import make_raters
from dermdistill.review.tables import AuditEntry, Rater


def rows_of(browser, name: str) -> list[dict[str, str]]:
    answered = browser.get(f"/admin/{name}.csv")
    assert answered.headers["content-disposition"] == f'attachment; filename="{name}.csv"'
    return list(csv.DictReader(io.StringIO(answered.text)))


def test_new_raters_get_links_that_work(server: Any) -> None:
    admin = server.admin()
    assert admin.send_form("/admin/raters", "/admin", labels="R1\r\n\r\n  R 2  ", simulated="yes").status_code == 303
    page = admin.get("/admin").text
    links = re.findall(r'value="(http://testserver/r/[^"]+)"', page)
    assert len(links) == 2 and page.count(">simulated</span>") == 2
    assert "You answer as R 2" in server.browser().get(links[1]).text


@pytest.mark.parametrize("labels", ["", "R1\nR1", "=cmd()", "a" * 41, "Ré", "Taken", "<b>"])
def test_names_that_cannot_be_come_back_with_the_reason(server: Any, labels: str) -> None:
    server.raters("Taken")
    answered = server.admin().send_form("/admin/raters", "/admin", labels=labels)
    assert answered.status_code == 422 and "raters cannot be made" in answered.text
    with server.room.database.reading() as session:
        assert session.scalars(select(Rater.label)).all() == ["Taken"]


def test_raters_are_made_all_or_none(server: Any) -> None:
    server.raters("Taken")
    with pytest.raises(ConfigError, match="Taken"):
        server.room.database.writer.write(lambda session: make_raters(session, ["New", "Taken"]))
    with server.room.database.reading() as session:
        assert session.scalars(select(Rater.label)).all() == ["Taken"]


def test_overview_shows_progress(server: Any) -> None:
    browser = server.rater("R1")
    server.raters("R2")
    browser.answer(1)
    page = server.admin().get("/admin").text
    assert "1 of 8 answers by 2 raters, 4 items each" in page
    assert '<progress value="1" max="4" aria-label="Answered by R1">' in page
    assert "none yet" in page


def test_export_has_whole_answers_and_is_noted(server: Any) -> None:
    browser = server.rater("R1")
    browser.answer(1, comment="=HYPERLINK(1)")
    browser.send_form("/item/2/first", before="nv")
    admin = server.admin()
    [row] = rows_of(admin, "answers")
    assert list(row) == [
        *("rater", "item", "before", "after", "spatial", "trust", "usefulness"),
        *("comment", "region", "seconds", "answered_at", "simulated"),
    ]
    assert (row["rater"], row["before"], row["after"], row["spatial"]) == ("R1", "nv", "mel", "4")
    assert row["comment"] == "'=HYPERLINK(1)" and row["simulated"] == "False"
    assert [entry["action"] for entry in rows_of(admin, "audit")][-1] == "answers exported"


def test_audit_tells_who_wrote_what_and_what_was_there_before(server: Any) -> None:
    browser = server.rater("R1")
    browser.answer(1)
    item = server.room.order(0)[0]
    entries = rows_of(server.admin(), "audit")
    assert [entry["action"] for entry in entries] == ["rater made", "item shown", "first diagnosis", "answer"]
    assert [entry["who"] for entry in entries] == ["admin", *["rater 1"] * 3]
    assert entries[3]["item"] == item and entries[3]["old"] == '{"before": "nv"}'
    assert '"after": "mel"' in entries[3]["new"] and entries[3]["at"].endswith("+00:00")


def test_erasing_asks_for_the_name_and_takes_all(server: Any) -> None:
    browser = server.rater("Doctor Who")
    browser.answer(1, comment="something private")
    admin, path = server.admin(), f"/admin/raters/{browser.rater.id}/erase"
    assert "1 answer, drafts and the personal link" in admin.get(path).text
    refused = admin.send_form(path, path, label="doctor who")
    assert refused.status_code == 422 and browser.get("/item").status_code == 303
    assert admin.send_form(path, path, label="Doctor Who").status_code == 303
    assert browser.get("/item").status_code == 403 and admin.get(path).status_code == 404
    assert rows_of(admin, "answers") == []
    told = admin.get("/admin/audit.csv").text + admin.get("/admin").text
    assert "rater erased" in told and "Doctor" not in told and "private" not in told


def test_new_link_of_nobody_is_refused(server: Any) -> None:
    assert server.admin().send_form("/admin/raters/7/link", "/admin").status_code == 403


def test_admin_link_is_too_old_after_a_day(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    token = server.room.links.admin_token()
    from itsdangerous import timed

    begun = timed.time.time()
    monkeypatch.setattr(timed.time, "time", lambda: begun + ADMIN_LINK_SECONDS + 2)
    assert server.browser().get(f"/admin/open/{token}").status_code == 403


def test_exports_that_nobody_may_see_are_not_noted(server: Any) -> None:
    assert server.rater("R1").get("/admin/answers.csv").status_code == 401
    with server.room.database.reading() as session:
        assert "answers exported" not in session.scalars(select(AuditEntry.action)).all()


def test_admin_session_is_for_the_admin_pages_alone(server: Any) -> None:
    answered = server.browser().get(server.room.admin_link())
    assert "Path=/admin" in answered.headers["set-cookie"] and server.browser().token_in(answered.text)
