"""Tables with their row numbers and image files by name, through links too."""

import csv
import io
import string
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.data.source_files import image_files, read_table, with_masks, without_suffix
from dermdistill.errors import DataError

CELLS = st.text(string.ascii_letters + string.digits + ' ,;"\n', max_size=8)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS, CELLS), max_size=6))
def test_read_table_gives_back_what_the_csv_module_wrote(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]]
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("One", " two ", "THREE"), *rows])
    path = tmp_path_factory.mktemp("table") / "t.csv"
    path.write_bytes(buffer.getvalue().encode())
    table, faults = read_table(path)
    assert faults == []
    assert table.columns.tolist() == ["one", "two", "three"]
    assert list(table.itertuples(index=False, name=None)) == [tuple(cell.strip() for cell in row) for row in rows]
    assert table.index.tolist() == [f"t.csv row {number}" for number in range(2, len(rows) + 2)]


def test_read_table_counts_blank_rows_and_names_odd_ones(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n\n3,4\n5\n,,\n6,7,8\n9,10\n")
    table, faults = read_table(tmp_path / "t.csv")
    assert table.index.tolist() == ["t.csv row 2", "t.csv row 4", "t.csv row 8"]
    assert faults == [
        "t.csv row 5: 1 values where the header has 2 columns",
        "t.csv row 7: 3 values where the header has 2 columns",
    ]


def test_read_table_refuses_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"t\.csv: cannot be read \(No such file"):
        read_table(tmp_path / "t.csv")


def test_image_files_follow_links_once_and_skip_hidden_files(tmp_path: Path) -> None:
    store = tmp_path / "store"
    data = tmp_path / "data"
    for path in (
        store / "b.JPG",
        store / "sub" / "c.png",
        data / "a.jpeg",
        data / "._a.jpeg",
        data / "a.txt",
    ):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (data / "link").symlink_to(store)
    (data / "second_link").symlink_to(store)
    (store / "loop").symlink_to(data)
    assert image_files(data) == [data / "a.jpeg", data / "link" / "b.JPG", data / "link" / "sub" / "c.png"]


def test_with_masks_pairs_by_name() -> None:
    files = [Path("x/a.jpg"), Path("x/a_segmentation.png"), Path("x/b.jpg")]
    assert list(with_masks(files)) == [(files[0], files[1]), (files[2], None)]


def test_without_suffix_takes_off_image_suffixes_only() -> None:
    names = ["ISIC_1.jpg", "ISIC_1.JPEG", "ISIC_1", "ISIC.1", ".jpg"]
    assert [without_suffix(name) for name in names] == ["ISIC_1", "ISIC_1", "ISIC_1", "ISIC.1", ".jpg"]
