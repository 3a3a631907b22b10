"""Tables, words and pictures of comparisons: the numbers in them are those of the result, in every language."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from dermdistill.errors import OutputError
from dermdistill.evaluate.comparison import compare_groups, compare_rows
from dermdistill.evaluate.predictions import predictions_frame
from dermdistill.labels import CODES
from dermdistill.report import comparison, forest, leakage

Json = dict[str, Any]
METRICS = ("macro_auc", "balanced_accuracy", "melanoma_auc")
TITLES = {"control": "No teacher", "multi": "Multi-stage, α .9 & 50% <b>_x|", "fused": "Fused"}


def estimate(value: float | None, spread: float | None = 0.004) -> Json:
    low, high = (None, None) if value is None else (value - 0.02, value + 0.02)
    return {"value": value, "low": low, "high": high, "spread": spread, "per_seed": [value]}


def difference(value: float | None, half: float, verdict: str | None) -> Json:
    low, high = (None, None) if value is None else (value - half, value + half)
    return {"value": value, "low": low, "high": high, "verdict": verdict, "per_seed": [value]}


def row(value: float, seeds: list[int], **differences: Json) -> Json:
    spread = 0.004 if len(seeds) > 1 else None
    return {
        "seeds": seeds,
        "metrics": {metric: estimate(value, spread) for metric in METRICS},
        "differences": differences,
        "paired_seeds": dict.fromkeys(differences, seeds),
    }


@pytest.fixture
def result() -> Json:
    helped = {metric: difference(0.032, 0.01, "helped") for metric in METRICS}
    torn = {
        "macro_auc": difference(-0.05, 0.01, "hurt"),
        "balanced_accuracy": difference(0.01, 0.02, "no evidence"),
        "melanoma_auc": difference(None, 0, None),
    }
    return {
        "task": "diagnosis",
        "paired": True,
        "verdicts": ["helped", "hurt"],
        "n": {"images": 1502, "lesions": 1119, "per_class": {}},
        "bootstrap": {"samples": 2000, "seed": 0, "unit": "lesion and seed", "level": 0.95},
        "metrics": list(METRICS),
        "control": "control",
        "rows": {
            "control": row(0.9, [0, 1, 2]),
            "multi": row(0.932, [0, 1, 2], control=helped),
            "fused": row(0.85, [1], control=torn, multi=helped),
        },
        "notes": ["Row fused_x | has <one> seed."],
    }


@pytest.fixture(scope="module")
def measured() -> Json:
    """Leakage as the real comparison gives it, of random scores."""
    diagnoses = np.repeat(list(CODES), 6)
    names = [f"i{index}" for index in range(len(diagnoses))]

    def frames(skill: float, first: int, keep: slice = slice(None)) -> dict[int, Any]:
        import pandas as pd

        rows = pd.DataFrame({"image_id": names, "lesion_id": names, "diagnosis": diagnoses})
        tables = {}
        for seed in range(2):
            logits = np.random.default_rng(first + seed).normal(size=(len(rows), 7))
            logits[np.arange(len(rows)), [CODES.index(code) for code in diagnoses]] += skill
            tables[seed] = predictions_frame("arm", "test", rows, logits, "diagnosis", models=None).iloc[keep]
        return tables

    options: Json = {"task": "diagnosis", "samples": 40, "seed": 0}
    protocols = {"lesion": frames(0.5, 0), "published": frames(4.0, 9)}
    injection = {"without": frames(1.0, 0), "with": frames(4.0, 0)}
    leakable = {"without": frames(1.0, 0, slice(0, None, 2)), "with": frames(4.0, 0, slice(0, None, 2))}
    return {
        "protocols": compare_groups(protocols, reference="lesion", **options),
        "injection": compare_rows(injection, control="without", **options),
        "injection_leakable": compare_rows(leakable, control="without", **options),
    }


def cells_of(text: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|") and not line.startswith("| ---")
    ]


def svg_texts(svg: str) -> list[str]:
    return [item.text or "" for item in ElementTree.fromstring(svg).iter() if item.tag.endswith("text")]


def test_csv_holds_every_number_with_all_digits(result: Json) -> None:
    lines = list(csv.DictReader(io.StringIO(comparison.comparison_csv(result))))
    assert len(lines) == 3 + 3 + 6  # the control, one row against it, one row against two
    for line in lines:
        own = result["rows"][line["row"]]["metrics"][line["metric"]]
        assert float(line["value"]) == own["value"] and float(line["high"]) == own["high"]
        assert line["spread"] == ("" if own["spread"] is None else "0.004")
        if not line["control"]:
            assert line["row"] == "control" and line["verdict"] == line["difference"] == ""
            continue
        other = result["rows"][line["row"]]["differences"][line["control"]][line["metric"]]
        assert line["verdict"] == (other["verdict"] or "")
        assert line["difference_low"] == ("" if other["low"] is None else repr(other["low"]))


def test_markdown_numbers_and_verdicts_equal_the_result(result: Json) -> None:
    text = comparison.comparison_markdown(result, TITLES)
    title = r"Multi-stage, α .9 &amp; 50% &lt;b&gt;_x\|"
    rows = cells_of(text)
    assert rows[0] == ["", "Seeds", "Macro AUC", "Balanced accuracy", "Melanoma AUC"]
    assert rows[1][:3] == ["No teacher", "3", ".900 ± .004 (.880-.920)"]
    assert rows[3][:3] == ["Fused", "1", ".850 (.830-.870)"]
    assert rows[5][:3] == [title, "3", "+.032 (+.022 to +.042) **helped**"]
    assert rows[6][2:] == ["-.050 (-.060 to -.040) **hurt**", "+.010 (-.010 to +.030) no evidence", "not computable"]
    assert rows[8][:2] == ["Fused", "1"]
    assert f"Paired difference from {title} (95% interval)" in text
    assert {len(row) for row in rows} == {5}


def test_bound_beside_zero_is_not_rounded_to_zero() -> None:
    cell = {"value": 0.0104, "low": 0.0002, "high": 0.021, "verdict": "helped"}
    assert comparison.difference_text(cell) == "+.0104 (+.0002 to +.0210)"
    assert comparison.difference_text({**cell, "verdict": "no evidence"}) == "+.010 (.000 to +.021)"


def test_latex_is_balanced_escaped_and_has_the_same_numbers(result: Json) -> None:
    text = comparison.comparison_latex(result, TITLES)
    assert text.count(r"\begin{tabular}{lrrrr}") == text.count(r"\end{tabular}") == text.count(r"\toprule") == 3
    assert text.count(r"\midrule") == text.count(r"\bottomrule") == 3
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert all(len(re.findall(r"(?<!\\)&", line)) == 4 for line in body)
    assert all(len(re.findall(r"(?<!\\)\$", line)) % 2 == 0 for line in body)
    assert not re.search(r"(?<!\\)[_#%]", "".join(body))
    assert r"Multi-stage, $\alpha$ .9 \& 50\% $<$b$>$\_x$|$ & 3 & $.932$" in text
    assert r"$+.032$ ($+.022$ to $+.042$) $\uparrow$" in text
    assert r"$-.050$ ($-.060$ to $-.040$) $\downarrow$" in text
    assert r"$.900$ $\pm$ $.004$ ($.880$ to $.920$)" in text
    assert r"$+.010$ ($-.010$ to $+.030$) &" in text


@pytest.mark.parametrize(
    ("letter", "escaped"), [("\\", r"\textbackslash{}"), ("{", r"\{"), ("~", r"\textasciitilde{}")]
)
def test_latex_text_takes_letters_literally(letter: str, escaped: str) -> None:
    assert comparison.latex_text(f"a {letter}\nb") == f"a {escaped} b"


def test_paragraph_tells_every_verdict_with_its_numbers(result: Json) -> None:
    text = comparison.verdict_paragraph(result, {**TITLES, "multi": "Multi"})
    assert text.startswith("Compared with No teacher on 1,502 test images of 1,119 lesions: Macro AUC, helped: Multi")
    assert "Macro AUC, helped: Multi +.032 (+.022 to +.042); hurt: Fused with one seed -.050 (-.060 to -.040)." in text
    assert "hurt: none; no evidence: Fused with one seed. Melanoma AUC" in text
    assert "Melanoma AUC, helped: Multi +.032 (+.022 to +.042); hurt: none; not computable: Fused" in text
    assert "Compared with Multi on" in text


def test_write_comparison_writes_five_files(result: Json, tmp_path: Path) -> None:
    folder = comparison.write_comparison(result, tmp_path / "out", name="ablation", titles=TITLES)
    assert {path.name for path in folder.iterdir()} == {
        f"ablation.{end}" for end in ("json", "csv", "md", "tex", "svg")
    }
    assert json.loads((folder / "ablation.json").read_text()) == {**result, "titles": TITLES}
    text = (folder / "ablation.md").read_text()
    assert comparison.comparison_markdown(result, TITLES) in text
    assert "- Row fused_x \\| has &lt;one&gt; seed." in text and "Compared with No teacher" in text
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        comparison.write_comparison(result, tmp_path / "file", name="x", titles={})


def test_forest_plot_shows_every_row_and_is_the_same_every_time(result: Json) -> None:
    svg = forest.forest_plot(result, TITLES)
    assert svg == forest.forest_plot(result, TITLES)
    texts = svg_texts(svg)
    for words in (
        "Multi-stage, α .9 & 50% <b>_x|", "Fused (one seed)",
        "Fused (one seed), against Multi-stage, α .9 & 50% <b>_x|",
        "Macro AUC", "Balanced accuracy", "Melanoma AUC", "helped", "hurt", "no evidence", "not computable",
        "difference from No teacher, with its 95% interval",
    ):  # fmt: skip
        assert words in texts, words
    root = ElementTree.fromstring(svg)
    assert root.tag == "{http://www.w3.org/2000/svg}svg" and root.get("role") == "img"
    assert "currentColor" not in svg and "var(" not in svg  # a file stands outside the page's style sheet


def test_forest_plot_marks_stand_where_the_numbers_are(result: Json, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []

    def keep(name: str, description: str, size: tuple[float, float], paint: Any) -> str:
        drawn.append(Figure(figsize=size, layout="constrained"))
        paint(drawn[0])
        return ""

    monkeypatch.setattr(forest, "draw_file", keep)
    forest.forest_plot(result, TITLES)
    first, second, _ = drawn[0].axes
    marks = [
        (line.get_xdata()[0], line.get_marker(), line.get_color()) for line in first.lines if len(line.get_xdata()) == 1
    ]
    assert [mark[0] for mark in marks] == pytest.approx([0.032, -0.05, 0.032])
    assert [mark[1] for mark in marks] == ["^", "v", "^"]
    assert len({mark[2] for mark in marks}) == 2
    bars = [tuple(line.get_xdata()) for line in first.lines if len(line.get_xdata()) == 2]
    assert (pytest.approx(0.022), pytest.approx(0.042)) in bars and (0, 0) in bars
    assert [line.get_marker() for line in second.lines if len(line.get_xdata()) == 1] == ["^", "o", "^"]


def test_verdicts_have_shapes_of_their_own() -> None:
    for words in (("helped", "hurt", "no evidence"), ("higher", "lower", "no evidence")):
        assert len({forest.MARKS[word][0] for word in words}) == len({forest.MARKS[word][1] for word in words}) == 3


def test_long_titles_do_not_leave_the_plot(result: Json) -> None:
    texts = svg_texts(forest.forest_plot(result, {"multi": "very " * 60}))
    assert all(len(text) <= forest.TITLE_LETTERS for text in texts)


def test_leakage_speaks_of_higher_and_not_of_helped(measured: Json, tmp_path: Path) -> None:
    folder = leakage.write_leakage(measured, tmp_path, titles={"with": "With sisters"})
    assert {path.name for path in folder.iterdir()} == {
        "leakage.json", "leakage.md", "leakage.tex", "leakage.svg",
        "leakage_protocols.csv", "leakage_injection.csv", "leakage_injection_leakable.csv",
    }  # fmt: skip
    saved = json.loads((folder / "leakage.json").read_text())
    assert saved == {**measured, "titles": {"with": "With sisters"}}
    assert saved["injection"]["rows"]["with"]["differences"]["without"]["accuracy"]["verdict"] == "helped"
    for name in ("leakage.md", "leakage.tex", "leakage.svg", "leakage_injection.csv"):
        assert "helped" not in (folder / name).read_text()
    text = (folder / "leakage.md").read_text()
    for part, title in leakage.PARTS.items():
        assert f"**{title}**" in text
        cell = list(measured[part]["rows"].values())[1]["differences"][measured[part]["control"]]["accuracy"]
        assert f"{comparison.difference_text(cell)} **higher**" in text
    assert "on 42 test images" in text and "on 21 test images" in text


def test_leakage_notes_come_once_each(measured: Json) -> None:
    notes = leakage.leakage_notes(measured)
    assert len(notes) == len(set(notes)) and any(
        note.startswith("protocols: Each row has a test part") for note in notes
    )
    assert sum("differences were looked at" in note for note in notes) == 1  # the same in all three parts


def test_leakage_plot_shows_protocols_and_injection(measured: Json) -> None:
    svg = leakage.leakage_plot(measured, {"with": "With & <sisters>"})
    assert svg == leakage.leakage_plot(measured, {"with": "With & <sisters>"})
    texts = svg_texts(svg)
    for words in (
        "lesion",
        "published",
        "With & <sisters>: 42 test images",
        "With & <sisters>: 21 leakable test images",
    ):
        assert words in texts
    assert texts.count("Macro AUC") == 2
