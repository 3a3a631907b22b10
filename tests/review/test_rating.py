"""A rater's way through a study, by requests: its rules, whatever a browser sends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from dermdistill.review.study import order_for
from dermdistill.review.tables import Answer, Draft


def stored(server: Any) -> list[Answer]:
    with server.room.database.reading() as session:
        return list(session.scalars(select(Answer).order_by(Answer.id)))


def test_link_opens_the_welcome_page_and_a_strict_session(server: Any) -> None:
    [rater] = server.raters("R1")
    browser = server.browser()
    answered = browser.get(server.room.rater_link(rater.id, 1))
    assert answered.status_code == 200
    cookie = answered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Secure" not in cookie
    for words in ("You answer as R1", "4 dermatoscopic images", "Nothing here is for clinical use", "What is stored"):
        assert words in answered.text
    assert browser.get("/item").headers["location"] == "/item/1"


def test_first_step_shows_the_image_without_the_model(server: Any) -> None:
    browser = server.rater("R1")
    page = browser.get("/item/1")
    assert "/item/1/image.png" in page.text
    assert "map.png" not in page.text and "model says" not in page.text and "%" not in page.text
    assert browser.get("/item/1/image.png").headers["content-type"] == "image/png"
    assert browser.get("/item/1/map.png").status_code == 404


def test_second_step_shows_the_answer_and_the_map(server: Any) -> None:
    browser = server.rater("R1")
    assert browser.send_form("/item/1/first", before="nv").headers["location"] == "/item"
    page = browser.get("/item/1")
    shown = next(item for item in server.room.study.items if item.item == server.room.order(0)[0])
    name = {
        "akiec": "Actinic keratosis / Bowen&#39;s disease",
        "bcc": "Basal cell carcinoma",
        "bkl": "Benign keratosis",
    }
    assert f"The model says: {name[shown.predicted]}" in page.text
    assert "70%" in page.text and "Your first diagnosis: <strong>Melanocytic nevus" in page.text
    assert browser.get("/item/1/map.png").status_code == 200


def test_whole_study_is_stored_in_the_rater_s_own_order(serve: Callable[..., Any], url: str) -> None:
    server = serve(url=url)
    for label in ("R1", "R2"):
        browser = server.rater(label)
        for position in range(1, 5):
            assert browser.answer(position, before="bcc", trust=str(position)).status_code == 303
        assert browser.get("/item").headers["location"] == "/done"
        assert "Thank you" in browser.get("/done").text
    answers = stored(server)
    for index in (0, 1):
        own = answers[4 * index : 4 * index + 4]
        assert [one.item for one in own] == order_for(server.room.study, index)
        assert [one.trust for one in own] == [1, 2, 3, 4]
    assert all((one.before, one.after, one.spatial, one.usefulness) == ("bcc", "mel", 4, 5) for one in answers)


def test_first_diagnosis_cannot_be_changed(server: Any) -> None:
    browser = server.rater("R1")
    token = browser.token_in(browser.get("/item/1").text)
    form = {"csrf": token, "before": "nv"}
    assert browser.post("/item/1/first", data=form).status_code == 303
    assert browser.post("/item/1/first", data=form).status_code == 303  # the same once more
    refused = browser.post("/item/1/first", data={**form, "before": "mel"})
    assert refused.status_code == 409 and "first diagnosis to item 1 stands" in refused.text
    browser.send_form("/item/1/second", **browser.ratings)
    assert browser.post("/item/1/first", data={**form, "before": "mel"}).status_code == 409
    assert [one.before for one in stored(server)] == ["nv"]


def test_whole_answer_cannot_be_changed_and_counts_once(server: Any) -> None:
    browser = server.rater("R1")
    browser.answer(1)
    token = browser.token_in(browser.get("/item/2").text)
    assert browser.post("/item/1/second", data={"csrf": token, **browser.ratings}).status_code == 303
    assert browser.post("/item/1/second", data={"csrf": token, **browser.ratings, "trust": "1"}).status_code == 409
    assert [one.trust for one in stored(server)] == [3]


@pytest.mark.parametrize(
    "path", ["/item/2/first", "/item/1/second", "/item/9/first", "/item/0/first", "/item/-1/first"]
)
def test_steps_cannot_be_skipped(server: Any, path: str) -> None:
    browser = server.rater("R1")
    token = browser.token_in(browser.get("/item/1").text)
    refused = browser.post(path, data={"csrf": token, "before": "nv", **browser.ratings})
    assert refused.status_code == 409
    assert stored(server) == []


@pytest.mark.parametrize("path", ["/item/2", "/item/4", "/item/99", "/item/0", "/done"])
def test_pages_that_are_not_due_lead_to_the_one_that_is(server: Any, path: str) -> None:
    assert server.rater("R1").get(path).headers["location"] == "/item/1"


@pytest.mark.parametrize("before", ["", "melanom", "MEL", None])
def test_first_step_without_a_known_diagnosis_comes_back(server: Any, before: str | None) -> None:
    fields = {} if before is None else {"before": before}
    again = server.rater("R1").send_form("/item/1/first", **fields)
    assert again.status_code == 422 and "Choose a diagnosis." in again.text
    assert stored(server) == []


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"trust": ""}, "Choose 1 to 5."),
        ({"spatial": "6"}, "Choose 1 to 5."),
        ({"usefulness": "٣"}, "Choose 1 to 5."),
        ({"after": "x"}, "Choose a diagnosis."),
        ({"region": "[[[0,0],[1,1]]]"}, "The drawing could not be read."),
        ({"comment": "x" * 4001}, "At most 4,000 letters"),
    ],
)
def test_incomplete_second_step_comes_back_with_what_was_typed(server: Any, fields: Any, words: str) -> None:
    browser = server.rater("R1")
    browser.send_form("/item/1/first", before="nv")
    again = browser.send_form("/item/1/second", **{**browser.ratings, "comment": "the <b>rim</b>", **fields})
    assert again.status_code == 422 and words in again.text
    assert 'name="trust" value="3" required checked' in again.text or "trust" in fields
    assert "the &lt;b&gt;rim&lt;/b&gt;" in again.text or "comment" in fields
    assert stored(server)[0].after is None


def test_region_and_comment_are_stored_as_given(server: Any) -> None:
    browser = server.rater("R1")
    drawn = [[[0, 0.25], [1, 0.123456], [0.5, 1]]]
    comment = "Zeile 1\r\nÜber <script>\0 =1+1"
    assert browser.answer(1, region=json.dumps(drawn), comment=comment).status_code == 303
    [one] = stored(server)
    assert json.loads(one.region) == [[[0, 0.25], [1, 0.1235], [0.5, 1]]]
    assert one.comment == "Zeile 1\nÜber <script> =1+1"


def test_draft_comes_back_on_reload_and_goes_with_the_answer(server: Any) -> None:
    browser = server.rater("R1")
    assert browser.send_form("/item/1/draft", step="first", before="bkl").status_code == 204
    assert 'value="bkl" required checked' in browser.get("/item/1").text
    browser.send_form("/item/1/first", before="bkl")
    typed = {"step": "second", "after": "df", "trust": "2", "comment": "half a sen", "region": "[[[0,0],[1,0],[1,1]]]"}
    assert browser.send_form("/item/1/draft", **typed).status_code == 204
    page = browser.get("/item/1").text
    assert ">half a sen</textarea>" in page and 'name="trust" value="2" required checked' in page
    assert 'value="df" required checked' in page and 'value="[[[0,0],[1,0],[1,1]]]"' in page
    browser.send_form("/item/1/second", **browser.ratings)
    with server.room.database.reading() as session:
        assert session.scalars(select(Draft)).all() == []


def test_draft_survives_a_new_start_of_the_server(serve: Callable[..., Any]) -> None:
    first = serve()
    browser = first.rater("R1")
    browser.send_form("/item/1/draft", step="first", before="vasc")
    cookies = dict(browser.cookies)
    first.close()
    after = serve().browser(cookies=cookies)
    assert 'value="vasc" required checked' in after.get("/item/1").text


def test_late_draft_of_a_step_that_is_over_changes_nothing(server: Any) -> None:
    browser = server.rater("R1")
    browser.send_form("/item/1/first", before="nv")
    late = browser.send_form("/item/1/draft", step="first", before="mel")
    assert late.status_code == 409
    assert 'value="mel" required checked' not in browser.get("/item/1").text
    answer_page = browser.send_form("/item/1/second", **browser.ratings)
    assert answer_page.status_code == 303
    token = browser.token_in(browser.get("/item/2").text)
    assert browser.post("/item/1/draft", data={"csrf": token, "step": "second", "trust": "1"}).status_code == 409


def test_draft_of_no_step_is_refused(server: Any) -> None:
    assert server.rater("R1").send_form("/item/1/draft", step="third", before="nv").status_code == 400


def test_nothing_tells_method_sham_repeat_or_name(server: Any) -> None:
    browser = server.rater("R1")
    seen: list[str] = []
    for position in range(1, 5):
        for step in ("first", "second"):
            parts = [browser.get(path) for path in (f"/item/{position}", f"/item/{position}/image.png")]
            parts += [browser.get(f"/item/{position}/map.png")]
            seen += [part.content.decode("latin-1") + str(sorted(part.headers.items())) for part in parts]
            browser.send_form(f"/item/{position}/{step}", before="nv", **browser.ratings)
    told = "".join(seen).lower()
    for item in server.room.study.items:
        for secret in (item.item, item.image_id, item.lesion_id):
            assert secret.lower() not in told
    for secret in ("grad_cam", "grad-cam", "centre", "sham", "repeat", "etag", "last-modified"):
        assert secret not in told


def test_pages_of_all_items_differ_in_nothing_but_number_and_answer(server: Any) -> None:
    """The page of a repeat and of a sham map is, letter for letter, that of any other item."""
    browser = server.rater("R1")
    pages = []
    for position in range(1, 5):
        browser.send_form(f"/item/{position}/first", before="nv")
        page = browser.get(f"/item/{position}").text
        model = page.partition('<section class="model"')[2].partition("</section>")[0]
        page = page.replace(model, "").replace(browser.token_in(page), "").replace("Send and finish", "Send and go on")
        place = f'value="{2 * position - 1}" max="8"'
        assert place in page
        pages.append(page.replace(place, "").replace(f"/item/{position}/", "").replace(f"mage {position}", ""))
        pages[-1] = pages[-1].replace(f"Item {position} of 4", "")
        browser.send_form(f"/item/{position}/second", **browser.ratings)
    assert len(set(pages)) == 1


def test_simulated_rater_is_marked_on_every_page(server: Any) -> None:
    [rater] = server.raters("Robot", simulated=True)
    browser = server.browser()
    assert "Simulated rater" in browser.get(server.room.rater_link(rater.id, 1)).text
    assert "Simulated rater" in browser.get("/item/1").text
    assert "Simulated rater" not in server.rater("Person").get("/item/1").text


def test_pictures_of_other_items_and_without_a_session_do_not_exist(server: Any, study_folder: Path) -> None:
    browser = server.rater("R1")
    item = server.room.order(0)[0]
    for path in ("/item/2/image.png", "/item/0/image.png", "/item/99/image.png", f"/item/{item}/image.png"):
        assert browser.get(path).status_code == 404
    for path in (f"/{item}.png", f"/static/{item}.png", "/static/..%2f..%2f__init__.py", "/static/%2e%2e/app.py"):
        assert browser.get(path).status_code == 404
    assert server.browser().get("/item/1/image.png").status_code == 401


def test_form_works_without_a_script(server: Any) -> None:
    """Each field of the second step stands in the form as an ordinary control."""
    browser = server.rater("R1")
    browser.send_form("/item/1/first", before="nv")
    page = browser.get("/item/1").text
    for name in ("after", "spatial", "trust", "usefulness"):
        assert page.count(f'type="radio" name="{name}"') == (7 if name == "after" else 5)
    assert '<textarea id="comment" name="comment"' in page and 'type="submit"' in page
    assert "onclick" not in page and "style=" not in page and "<script>" not in page
