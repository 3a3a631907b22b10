import json
import re
import shutil
from base64 import b64decode
from collections.abc import Callable
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dermdistill.errors import RunFolderError
from dermdistill.report.downloads import content_policy, page_script
from dermdistill.report.page import write_report
from dermdistill.report.results import collect_results
from dermdistill.report.run_files import REQUIRED, distils_without_control, read_run
from dermdistill.report.sections import SECTIONS

OPTIONAL = {
    "audit.json": "no audit.json",
    "teacher/log.jsonl": "no teacher/log.jsonl",
    "student/log.jsonl": "no student/log.jsonl",
    "explanations/explanations.json": "no explanations/explanations.json",
    "bundle/manifest.json": "no bundle/manifest.json",
    "catalog.parquet": "no catalog.parquet",
}
NO_CONTROL = "No student was trained without a teacher in this run, so it does not show that distillation helped"
VOID = {"meta", "img", "br"}
Json = dict[str, Any]


class Page(HTMLParser):
    """Checks that tags close in order; collects tables by caption, links, banners and the visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[tuple[str, str, str]] = []
        self.tables: dict[str, dict[str, list[str]]] = {}
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        self.caption = ""
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.addresses += [(tag, n, v or "") for n, v in attrs if n in {"src", "href", "xlink:href", "srcset"}]
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.rows, self.caption = [], ""
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()
        if tag == "table":
            self.tables[self.caption] = {row[0]: row[1:] for row in self.rows if row}

    def handle_data(self, data: str) -> None:
        if "script" in self.open:
            self.scripts.append(data)
        if {"style", "script"} & set(self.open):
            return
        self.text += data
        if "caption" in self.open:
            self.caption += data
        elif "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def shown(value: Json) -> str:
    """An independent formatting of an interval."""
    three = [f"{value[key]:.3f}" for key in ("value", "low", "high")]
    v, low, high = (text.replace("0.", ".") if text.startswith("0.") else text for text in three)
    return f"{v} ({low}-{high})"


@pytest.fixture(scope="module")
def html(whole_run: Path) -> str:
    return write_report(whole_run).read_text()


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.fixture(scope="module")
def evaluation(whole_run: Path) -> Json:
    content: Json = json.loads((whole_run / "evaluation" / "evaluation.json").read_text())
    return content


@pytest.fixture(scope="module")
def bare(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Page]:
    """The page of a run that has the required files only, and a student that learnt from no teacher."""
    run = tmp_path_factory.mktemp("bare")
    for name in REQUIRED:
        (run / name).parent.mkdir(exist_ok=True)
        shutil.copy(whole_run / name, run / name)
    (run / "recipe.yaml").write_text("name: plain\nstudent: {distill: {alpha: 0, beta: 0, gamma: 1}}\n")
    content = json.loads((run / "evaluation" / "evaluation.json").read_text())
    for key in ("files", "differences", "size_ratios", "notes", "bootstrap"):
        del content[key]
    (run / "evaluation" / "evaluation.json").write_text(json.dumps(content))
    (run / "provenance.json").write_text("{}")
    html = write_report(run).read_text()
    return html, Page(html)


def hostile_evaluation(content: Json) -> None:
    """Leaky, with a class and notes that hold tags, and with values that could not be computed."""
    text = json.dumps(content).replace('"vasc"', '"<b>vasc"')
    content.clear()
    content.update(json.loads(text))
    content["leaky"], content["protocol"] = True, "published"
    null = {"value": None, "low": None, "high": None}
    for model in content["models"].values():
        model["diagnosis"]["macro_auc"] = null
        model["melanoma"] = dict.fromkeys(model["melanoma"])
        model["thresholds"] = {"youden": None, "at_95_sensitivity": None}
        model["curves"]["roc"] = {"fpr": [], "tpr": []}
    content["differences"]["student_int8 - student"]["macro_auc"] = null
    content["files"]["teacher"]["latency_ms"] = None
    content["n"]["per_class"]["mel"] = 4
    content["notes"].append("a <b>note</b>")


def hostile_explanations(content: Json) -> None:
    content["items"][0]["image_id"] = '<b>"id'
    content["items"][1]["image"] = "../provenance.json"
    content["items"][2]["maps"]["grad_cam"]["overlay"] = "gone.png"
    content["items"][3]["maps"]["grad_cam"]["blank"] = True


def hostile_audit(content: Json) -> None:
    content.update(promises_disjoint=False, protocol="published")
    content["images_sharing_lesion_across"] = {"share": 0.387, "melanoma_share": None}
    content["lesions_across"] = {
        "count": 3,
        "lesions": [{"lesion_id": "<b>L7", "parts": ["train", "test"], "images": 2}],
    }


def hostile_provenance(content: Json) -> None:
    content["code"]["dirty"] = True
    content["data"]["source"] = "synthetic <b>"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory, write_fake_run: Callable[..., Path]) -> tuple[str, Page]:
    changes = {
        "evaluation/evaluation.json": hostile_evaluation,
        "explanations/explanations.json": hostile_explanations,
        "audit.json": hostile_audit,
        "provenance.json": hostile_provenance,
    }
    run = write_fake_run(tmp_path_factory.mktemp("hostile") / "run", changes)
    for name in ("teacher/log.jsonl", "student/log.jsonl", "catalog.parquet"):
        (run / name).unlink()  # drawn for other tests; here they would only take time
    (run / "recipe.yaml").write_text("name: </pre><script>alert(1)</script>\n")
    html = write_report(run).read_text()
    return html, Page(html)


def test_page_parses_and_has_every_section(page: Page) -> None:
    linked = {address[1:] for tag, _, address in page.addresses if tag == "a" and address.startswith("#")}
    assert {"summary", "purpose", "data", "split", "training", "results", "explanations", "provenance"} <= linked
    assert linked <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))


def test_page_asks_for_nothing_outside_itself(html: str, page: Page) -> None:
    inside = ("#", "data:image/png;base64,", "data:application/json;base64,")
    assert [item for item in page.addresses if not item[2].startswith(inside)] == []
    assert page.tags.isdisjoint({"link", "iframe", "object", "embed", "base"})
    assert "src" not in {name for tag, name, _ in page.addresses if tag == "script"}
    assert not re.search(r"url\((?!#)|@import", html)


def test_page_lets_its_own_script_run_and_nothing_else(html: str, page: Page) -> None:
    (script,) = page.scripts
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert unescape(policy) == content_policy(script)
    assert html.index("Content-Security-Policy") < html.index("<style>")
    assert not re.search(r"\son[a-z]+=", html)


def test_page_opens_with_conclusions_that_link_to_their_evidence(html: str, page: Page, evaluation: Json) -> None:
    header = html[html.index('<header id="summary">') : html.index("</header>")]
    assert page.ids[0] == "summary"
    assert re.findall(r'<a href="#([a-z]+)">', header) == ["split", "classes", "results", "results", "purpose"]
    area = shown(evaluation["models"]["student_int8"]["diagnosis"]["macro_auc"])
    assert f"Macro AUC {area}, balanced accuracy" in header


def test_run_without_evidence_owes_none(page: Page) -> None:
    assert "Not part of this evaluation" not in page.text
    assert set(page.ids).isdisjoint(section.name for section in SECTIONS)


def test_run_with_some_evidence_names_what_is_missing(make_run: Callable[..., Path]) -> None:
    run = make_run()
    for name in ("teacher/log.jsonl", "student/log.jsonl", "catalog.parquet"):
        (run / name).unlink()  # drawn for other tests; here they would only take time
    path = run / "evaluation" / "evaluation.json"
    content = json.loads(path.read_text())
    groups = ("surest_mistakes", "missed_melanomas", "least_certain", "benign_like_melanoma")
    case = {"image_id": "ISIC_1", "true": "nv", "predicted": "nv", "confidence": 0.2, "melanoma_probability": 0.1}
    content["cases"] = {name: [] for name in groups} | {"lesions": dict.fromkeys(groups, 0), "confusions": []}
    content["cases"] |= {"model": "student_int8", "least_certain": [case]}
    path.write_text(json.dumps(content))
    page = Page(write_report(run).read_text())
    names = [section.name for section in SECTIONS]
    assert [name for name in page.ids if name in names] == names
    assert page.text.count("Not part of this evaluation") == len(names) - 1
    assert len(page.ids) == len(set(page.ids))


def test_page_hands_out_its_evaluation(page: Page, whole_run: Path) -> None:
    (address,) = [address for _, _, address in page.addresses if address.startswith("data:application/json")]
    assert b64decode(address.partition(",")[2]) == (whole_run / "evaluation" / "evaluation.json").read_bytes()


def test_page_shows_every_metric_of_every_model(page: Page, evaluation: Json) -> None:
    table = page.tables["All metrics"]
    models = list(evaluation["models"].values())
    rows = {"accuracy": "Accuracy", "balanced_accuracy": "Balanced accuracy", "macro_f1": "Macro F1"}
    rows |= {"weighted_f1": "Weighted F1", "macro_auc": "Macro AUC"}
    for key, title in rows.items():
        assert table[title] == [shown(model["diagnosis"][key]) for model in models]
    rows = {
        "roc_auc": "ROC AUC",
        "pr_auc": "PR AUC",
        "sensitivity": "Sensitivity",
        "specificity": "Specificity",
    }
    rows |= {"specificity_at_95_sensitivity": "Specificity at 95% sensitivity"}
    for key, title in rows.items():
        assert table[title] == [shown(model["melanoma"][key]) for model in models]
    for model in models:
        assert shown(model["diagnosis"]["ece"]) in page.text
        assert shown(model["melanoma"]["ece"]) in page.text


def test_page_shows_per_class_figures_and_spares_small_classes(page: Page, evaluation: Json) -> None:
    per_class = evaluation["models"]["student_int8"]["per_class"]
    table = page.tables["Student INT8 on the test part"]
    cells = table["mel Melanoma"]
    names = ("sensitivity", "specificity", "ppv", "npv", "auc")
    assert cells == ["167", *(shown(per_class["mel"][name]) for name in names)]
    assert table["df Dermatofibroma"] == ["8"] + ["too few (8)"] * 5


def test_page_shows_differences_sizes_and_latency(page: Page, evaluation: Json) -> None:
    difference = evaluation["differences"]["student_int8 - student"]["accuracy"]["value"]
    cell = page.tables["Paired differences over the same bootstrap samples"]["Accuracy"][1]
    assert float(cell.split()[0]) == pytest.approx(difference, abs=6e-4)
    row = page.tables["Size and latency of one image at a time"]["Student INT8 bundle/model.int8.onnx"]
    assert row[0] == "3.67 MB (3,671,004 bytes)"
    assert row[1:3] == ["73.6% smaller", "89.4% smaller"]
    assert row[3].startswith("2.28 ms")


def test_page_shows_counts_and_proof_of_the_split(page: Page) -> None:
    table = page.tables["Images a class and part"]
    assert table["nv Melanocytic nevus"] == ["4,698", "1,006", "1,006", "6,710"]
    proof = page.tables["What the audit counted"]
    assert proof["Lesions in more than one part"] == ["0"]
    assert "ISIC_0031992" in page.text
    assert "c" * 64 in page.text


def test_page_embeds_all_pictures(page: Page) -> None:
    pictures = [address for tag, name, address in page.addresses if tag == "img" and name == "src"]
    assert len(pictures) == 14 * 3, "each case: the image and a map of each method"
    assert "Wrongly classified images" in page.text


def test_page_says_that_no_control_was_trained(page: Page, bare: tuple[str, Page]) -> None:
    assert NO_CONTROL in page.text
    assert NO_CONTROL not in bare[1].text


@pytest.mark.parametrize(
    ("distill", "models", "said"),
    [
        ({}, ("student",), True),
        ({}, ("student", "no_teacher"), False),
        ({"alpha": 0, "beta": 0, "gamma": 1}, ("student",), False),
        ({"alpha": 0, "beta": 0, "gamma": 1, "attention": 10}, ("student",), True),
        ({"alpha": 0, "beta": 0, "gamma": 1, "stages": [{"depth": 1, "beta": 0.1}]}, ("student",), True),
    ],
)
def test_any_teaching_without_a_control_is_said(distill: dict[str, Any], models: tuple[str, ...], said: bool) -> None:
    assert distils_without_control({"student": {"distill": distill}}, models) is said


def test_compression_stands_between_curves_and_explanations(make_run: Callable[..., Path], record: Json) -> None:
    run = make_run()
    (run / "compression").mkdir()
    record["files"]["student_int8"]["how"] = "<b>static"
    (run / "compression" / "compression.json").write_text(json.dumps(record))
    html = write_report(run).read_text()
    page = Page(html)
    places = [page.ids.index(name) for name in ("curves", "compression", "explanations")]
    assert places == sorted(places)
    assert "#compression" in {address for _, _, address in page.addresses}
    row = page.tables["Every file of the student on the test part"]["ONNX Runtime INT8 model.int8.onnx: <b>static"]
    assert row[:2] == ["3.21 MB", ".901 (+.0012)"]
    assert page.tables["Signal to noise behind every layer"]["2 body"] == ["31.2 dB", "4.0 dB"]
    sensitive = next(table for caption, table in page.tables.items() if caption.startswith("The most sensitive layers"))
    assert len(sensitive) == 11 and sensitive["stem"] == ["12.3 dB", "yes"]
    assert "chosen by Macro AUC on the validation part" in page.text
    assert 'aria-label="Signal to noise behind each of 3 layers' in html


def test_compression_without_followed_layers_has_no_figure(make_run: Callable[..., Path], record: Json) -> None:
    run = make_run()
    (run / "compression").mkdir()
    for entry in record["files"].values():
        entry["layers"] = []
    (run / "compression" / "compression.json").write_text(json.dumps(record))
    page = Page(write_report(run).read_text())
    assert "compression" in page.ids and "Where the error grows" not in page.text


def test_run_without_a_record_of_compression_has_no_such_section(page: Page) -> None:
    assert "compression" not in page.ids
    assert "#compression" not in {address for _, _, address in page.addresses}


def test_same_files_give_the_same_bytes(whole_run: Path, html: str) -> None:
    assert write_report(whole_run).read_text() == html


def test_clean_run_has_no_warning_banners(page: Page) -> None:
    assert "leaky-banner" not in page.ids
    for words in ("Leaky protocol", "broke its promise", "Synthetic lesions", "Uncommitted changes"):
        assert words not in page.text


def test_leaky_run_has_the_banner(hostile: tuple[str, Page]) -> None:
    assert "leaky-banner" in hostile[1].ids
    assert "protocol published: leaky" in hostile[1].text


def test_dirty_synthetic_run_with_few_melanomas_is_warned_of(hostile: tuple[str, Page]) -> None:
    for words in ("Uncommitted changes", "Synthetic lesions", "The test part has 4 melanomas"):
        assert words in hostile[1].text


def test_text_of_a_run_is_escaped_everywhere(hostile: tuple[str, Page]) -> None:
    html, page = hostile
    for text in ("<b>vasc", '<b>"id', "<b>note", "<b>L7", "synthetic <b>", "</pre><script>alert(1)"):
        assert text not in html
        assert text in page.text
    assert page.scripts == [page_script()]


def test_values_that_could_not_be_computed_say_so(hostile: tuple[str, Page]) -> None:
    page = hostile[1]
    table = page.tables["All metrics"]
    assert table["Macro AUC"] == ["not computable"] * 3
    assert table["Specificity at 95% sensitivity"] == ["not computable"] * 3
    assert table["For 95% sensitivity"] == ["not computable"] * 3
    assert page.tables["What the audit counted"]["The same, of test melanomas"] == ["not computable"]
    assert page.tables["Size and latency of one image at a time"]["Teacher teacher/model.onnx"][3] == "not measured"
    assert not re.search(r"\b(nan|None|null)\b", page.text)


def test_pictures_stay_in_their_folder_and_missing_ones_are_named(hostile: tuple[str, Page]) -> None:
    pictures = [address for tag, name, address in hostile[1].addresses if tag == "img" and name == "src"]
    assert len(pictures) == 14 * 3 - 2
    assert "image missing" in hostile[1].text
    assert "heat map missing" in hostile[1].text
    assert hostile[1].text.count("the map is empty") == 1


@pytest.mark.parametrize("name", OPTIONAL)
def test_missing_optional_file_is_named_in_words(bare: tuple[str, Page], page: Page, name: str) -> None:
    assert OPTIONAL[name] in bare[1].text
    assert OPTIONAL[name] not in page.text


def test_bare_run_names_what_was_not_measured(bare: tuple[str, Page]) -> None:
    assert "The evaluation measured no files" in bare[1].text
    assert "No paired differences were computed" in bare[1].text


@pytest.mark.parametrize("name", REQUIRED)
def test_missing_required_file_is_named_with_the_command(tmp_path: Path, whole_run: Path, name: str) -> None:
    for other in REQUIRED:
        if other != name:
            (tmp_path / other).parent.mkdir(exist_ok=True)
            shutil.copy(whole_run / other, tmp_path / other)
    with pytest.raises(RunFolderError, match="--resume") as caught:
        write_report(tmp_path)
    assert name in caught.value.problem
    assert not (tmp_path / "report.html").exists()


def test_all_missing_files_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError) as caught:
        write_report(tmp_path)
    assert all(name in caught.value.problem for name in REQUIRED)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("provenance.json", "{", "cannot be read as JSON"),
        ("split.json", "[]", "not an object"),
        ("recipe.yaml", "a: [", "cannot be read as YAML"),
        ("student/log.jsonl", '{"epoch": 0}\n{"ep', "line 2"),
        ("catalog.parquet", "x", "cannot be read as a catalog"),
        ("compression/compression.json", "{}", "lacks reference"),
    ],
)
def test_damaged_file_is_named(make_run: Callable[..., Path], name: str, content: str, words: str) -> None:
    run = make_run()
    (run / name).parent.mkdir(exist_ok=True)
    (run / name).write_text(content)
    with pytest.raises(RunFolderError, match=words) as caught:
        write_report(run)
    assert str(run / name) in caught.value.problem


def test_drawn_lesions_never_go_by_the_name_of_their_layout(make_run: Callable[..., Path]) -> None:
    run = make_run()
    pd.read_parquet(run / "catalog.parquet").assign(diagnosis_source="synthetic").to_parquet(run / "catalog.parquet")
    files = read_run(run)
    assert files.synthetic
    assert files.source == "synthetic lesions (HAM10000 layout)"
    provenance = json.loads((collect_results(run, run / "kept") / "provenance.json").read_text())
    assert provenance["data"]["source"] == files.source
