"""Protocols, the split's files and the table of a given split."""

import hashlib
from itertools import product
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermdistill.config import DataConfig
from dermdistill.data.catalog import COLUMNS
from dermdistill.data.protocols import PARTS, PROTOCOLS, deal, oversample, part_sizes, shuffled
from dermdistill.data.readers import READERS
from dermdistill.data.split import Split, load_split, make_split, unite, write_split
from dermdistill.errors import DataError
from dermdistill.labels import CODES

PUBLISHED_TRAIN = {"nv": 5364, "mel": 890, "bkl": 879, "bcc": 411, "akiec": 262, "vasc": 114, "df": 92}
PUBLISHED_TEST = {"nv": 1341, "mel": 223, "bkl": 220, "bcc": 103, "akiec": 65, "vasc": 28, "df": 23}


def catalog_of(lesions: dict[str, list[int]]) -> pd.DataFrame:
    """A catalog from diagnosis -> images of each lesion."""
    rows = [
        {"lesion_id": f"{code}-{lesion}", "diagnosis": code}
        for code, sizes in lesions.items()
        for lesion, images in enumerate(sizes)
        for _ in range(images)
    ]
    frame = pd.DataFrame(rows)
    frame["image_id"] = [f"im{row:05d}" for row in range(len(rows))]
    frame["path"] = frame["image_id"] + ".png"
    frame["mask_path"] = None
    frame[["diagnosis_source", "sex", "site", "source"]] = ["histo", "female", "back", "made up"]
    frame["age"] = 50.0
    return frame[list(COLUMNS)]


def by_class(rows: pd.DataFrame) -> dict[str, int]:
    return {str(code): int(count) for code, count in rows["diagnosis"].value_counts().items()}


def lesion_sizes() -> st.SearchStrategy[dict[str, list[int]]]:
    sizes = st.lists(st.integers(1, 6), min_size=3, max_size=40)
    return st.dictionaries(st.sampled_from(CODES), sizes, min_size=1, max_size=3)


SMALL = {"mel": [1, 2, 3, 1, 1], "nv": [1] * 30 + [2] * 10, "df": [2, 2, 2]}


@given(lesion_sizes(), st.integers(0, 3), st.sampled_from([(0.15, 0.15), (0.1, 0.3), (0.45, 0.45)]))
@settings(max_examples=40, deadline=None)
def test_lesion_split_is_complete_disjoint_and_near_the_fractions(
    lesions: dict[str, list[int]], seed: int, fractions: tuple[float, float]
) -> None:
    catalog = catalog_of(lesions)
    config = DataConfig(seed=seed, val_fraction=fractions[0], test_fraction=fractions[1])
    split = make_split(catalog, config)
    assert sorted(split.table["image_id"]) == sorted(catalog["image_id"])
    rows = split.table.merge(catalog, on="image_id")
    assert rows.groupby("lesion_id")["split"].nunique().max() == 1
    for code, sizes in lesions.items():
        counts = [split.info["counts"][part][code] for part in PARTS]
        targets = part_sizes(sum(sizes), *fractions)
        assert min(counts) > 0 and sum(counts) == sum(sizes)
        for count, target in zip(counts, targets, strict=True):
            assert -2 * max(sizes) < count - target < max(sizes)


@given(st.sampled_from(["lesion", "published"]), st.integers(0, 5), st.randoms())
@settings(max_examples=8, deadline=None)
def test_split_does_not_depend_on_the_order_of_rows(protocol: str, seed: int, random: object) -> None:
    catalog = catalog_of(SMALL)
    config = DataConfig.model_validate({"protocol": protocol, "seed": seed})
    mixed = catalog.sample(frac=1, random_state=random.randrange(2**31))  # type: ignore[attr-defined]
    assert make_split(catalog, config).info == make_split(mixed, config).info


def test_oversampled_split_does_not_depend_on_the_order_of_rows() -> None:
    catalog, config = catalog_of(SMALL), DataConfig(protocol="published-oversampled")
    assert make_split(catalog, config).table.equals(make_split(catalog[::-1], config).table)


def test_lesion_split_of_a_class_does_not_depend_on_the_other_classes() -> None:
    catalog = catalog_of(SMALL)
    whole = make_split(catalog, DataConfig()).table
    alone = make_split(catalog[catalog["diagnosis"] == "nv"], DataConfig()).table
    assert whole[whole["image_id"].isin(alone["image_id"])].reset_index(drop=True).equals(alone)


def test_lesion_split_changes_with_the_seed() -> None:
    catalog = catalog_of(SMALL)
    hashes = {make_split(catalog, DataConfig(seed=seed)).info["split_sha256"] for seed in range(5)}
    assert len(hashes) == 5


def test_lesion_split_meets_the_fractions_exactly_where_lesions_allow() -> None:
    split = make_split(catalog_of({"nv": [1] * 60 + [2] * 20, "mel": [3] * 20 + [1] * 40}), DataConfig())
    assert [split.info["counts"][part]["nv"] for part in PARTS] == [70, 15, 15]
    assert [split.info["counts"][part]["mel"] for part in PARTS] == [70, 15, 15]


def test_deal_fills_the_gaps_that_large_lesions_leave_with_single_images() -> None:
    sizes = [1] * 10 + [6] * 15
    parts = deal(sizes, (70, 15, 15))
    totals = [sum(size for size, part in zip(sizes, parts, strict=True) if part == wanted) for wanted in range(3)]
    assert totals == [70, 15, 15]


def test_lesion_split_spreads_large_lesions_in_proportion() -> None:
    sizes = [1] * 100 + [4] * 100
    large = [part for part, size in zip(deal(sizes, (350, 75, 75)), sizes, strict=True) if size == 4]
    assert abs(large.count(0) - 70) <= 1 and abs(large.count(1) - 15) <= 1 and abs(large.count(2) - 15) <= 1


@given(st.lists(st.integers(1, 4), min_size=3, max_size=7))
@settings(max_examples=40, deadline=None)
def test_deal_is_within_the_largest_lesion_of_the_best_of_all_ways(sizes: list[int]) -> None:
    targets = part_sizes(sum(sizes), 0.2, 0.2)

    def error(parts: tuple[int, ...] | list[int]) -> int:
        totals = [sum(s for s, p in zip(sizes, parts, strict=True) if p == part) for part in range(3)]
        return max(abs(total - target) for total, target in zip(totals, targets, strict=True))

    best = min(error(parts) for parts in product(range(3), repeat=len(sizes)) if len(set(parts)) == 3)
    assert best <= error(deal(sizes, targets)) <= best + max(sizes) - 1


@pytest.mark.parametrize(
    ("total", "fractions", "expected"),
    [(3, (0.15, 0.15), (1, 1, 1)), (4, (0.45, 0.45), (1, 1, 2)), (10, (0.15, 0.2), (6, 2, 2))],
)
def test_part_sizes_round_half_up_and_leave_no_part_empty(
    total: int, fractions: tuple[float, float], expected: tuple[int, int, int]
) -> None:
    assert sum(expected) == total
    assert sorted(part_sizes(total, *fractions)) == sorted(expected)


def test_lesion_split_of_too_few_lesions_names_every_class() -> None:
    with pytest.raises(DataError) as error:
        make_split(catalog_of({"nv": [1] * 9, "df": [5, 5], "vasc": [9]}), DataConfig())
    assert error.value.faults == ("class 'df' has 2 lesions", "class 'vasc' has 1 lesion")


def test_published_split_of_too_few_images_names_the_class() -> None:
    with pytest.raises(DataError, match="class 'df' has 2 images"):
        make_split(catalog_of({"nv": [9], "df": [1, 1]}), DataConfig(protocol="published"))


def test_shuffled_is_the_order_of_sha256() -> None:
    names = [f"n{number}" for number in range(50)]
    expected = sorted(names, key=lambda name: hashlib.sha256(b"7:" + name.encode()).hexdigest())
    assert shuffled(reversed(names), 7) == expected != names


def test_same_image_pairs_stay_together_over_several_lesions() -> None:
    catalog = catalog_of({"nv": [1] * 40, "mel": [1] * 9})
    ids = list(catalog["image_id"])
    chain = [(ids[0], ids[1]), (ids[1], ids[2]), (ids[41], ids[42]), (ids[5], ids[40])]
    apart = 0
    for seed in range(12):
        config = DataConfig(seed=seed)
        part = make_split(catalog, config, chain).table.set_index("image_id")["split"]
        assert all(part[one] == part[other] for one, other in chain)
        free = make_split(catalog, config).table.set_index("image_id")["split"]
        apart += any(free[one] != free[other] for one, other in chain)
    assert apart > 0


@given(st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25))
def test_unite_gives_the_connected_components(edges: list[tuple[int, int]]) -> None:
    lesion_of_image = {f"i{number}": f"L{number // 2}" for number in range(20)}
    groups = unite(lesion_of_image, [(f"i{a}", f"i{b}") for a, b in edges])
    reach = {number: {number // 2 * 2, number // 2 * 2 + 1} for number in range(20)}
    for _ in range(20):
        for a, b in edges:
            joined = reach[a] | reach[b]
            for number in joined:
                reach[number] = reach[number] | joined
    for one, other in product(range(20), repeat=2):
        assert (groups[f"i{one}"] == groups[f"i{other}"]) == (other in reach[one])


def test_same_image_with_an_unknown_id_is_refused() -> None:
    with pytest.raises(DataError, match="'nobody'"):
        make_split(catalog_of(SMALL), DataConfig(), [("im00000", "nobody")])


@given(st.integers(1, 60), st.integers(1, 200))
def test_oversample_repeats_names_as_evenly_as_can_be(names: int, total: int) -> None:
    copies = oversample([f"n{number}" for number in range(names)], total, seed=1)
    counts = pd.Series(copies).value_counts()
    assert len(copies) == max(total, names) and len(counts) == names
    assert counts.max() - counts.min() <= 1


def test_published_oversampled_splits_copies() -> None:
    split = make_split(catalog_of(SMALL), DataConfig(protocol="published-oversampled"))
    assert split.info["leaky"] is True
    for part, images in (("train", 6500), ("val", 1500), ("test", 2000)):
        assert [split.info["counts"][part][code] for code in SMALL] == [images] * 3
        assert len(split.ids(part)) == 3 * images
    assert set(split.ids("train")) & set(split.ids("test"))


def test_every_protocol_of_the_settings_is_there() -> None:
    field = DataConfig.model_fields["protocol"].annotation
    assert set(PROTOCOLS) == set(getattr(field, "__args__", ()))


def test_split_files_read_back_as_written(tmp_path: Path) -> None:
    split = make_split(catalog_of(SMALL), DataConfig())
    write_split(split, tmp_path)
    again = load_split(tmp_path)
    assert again.info == split.info and again.table.equals(split.table)
    csv = (tmp_path / "split.csv").read_bytes()
    assert csv.startswith(b"image_id,split\nim00000,")
    assert hashlib.sha256(csv).hexdigest() == split.info["split_sha256"]
    assert sum(split.info["images"].values()) == len(split.table)
    assert sum(split.info["fractions"].values()) == pytest.approx(1)
    assert split.info["lesions"] == {
        part: catalog_of(SMALL).set_index("image_id").loc[split.ids(part), "lesion_id"].nunique() for part in PARTS
    }


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("split.csv", "image_id,split", "image,split", "no column image_id"),
        ("split.csv", ",val", ",validation", "split 'validation' is none of train, val, test"),
        ("split.csv", "im00000,", "im99999,", "was changed since"),
        ("split.json", '"counts"', '"count"', "no counts"),
        ("split.json", "{", "", "not JSON"),
    ],
)
def test_load_split_refuses_damaged_files(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    write_split(make_split(catalog_of(SMALL), DataConfig()), tmp_path)
    text = (tmp_path / file).read_text()
    assert old in text
    (tmp_path / file).write_text(text.replace(old, new))
    with pytest.raises(DataError, match=message):
        load_split(tmp_path)


def test_load_split_of_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"split\.csv: cannot be read"):
        load_split(tmp_path)


def test_ids_of_an_unknown_part_are_refused() -> None:
    with pytest.raises(DataError, match="one of train, val, test"):
        make_split(catalog_of(SMALL), DataConfig()).ids("dev")


def given_split(folder: Path, catalog: pd.DataFrame, lines: list[str]) -> Split:
    path = folder / "mine.csv"
    path.write_text("\n".join(lines) + "\n")
    return make_split(catalog, DataConfig(protocol="given", split_file=str(path)))


def test_given_split_is_taken_as_it_is(tmp_path: Path) -> None:
    catalog = catalog_of({"nv": [2, 2]})
    split = given_split(
        tmp_path,
        catalog,
        ["split,note,image_id", "test,,im00003", "train,x,im00000", "train,,im00001", "val,,im00002"],
    )
    assert split.ids("train") == ["im00000", "im00001"] and split.ids("test") == ["im00003"]
    assert split.info["leaky"] is False


def test_given_split_lists_all_faults_with_their_rows(tmp_path: Path) -> None:
    catalog = catalog_of({"nv": [2, 2]})
    lines = ["image_id,split", "im00000,train", "im00001,dev", "im00000,val", "im7,train"]
    with pytest.raises(DataError) as error:
        given_split(tmp_path, catalog, lines)
    assert error.value.faults == (
        "mine.csv row 3: split 'dev' is none of train, val, test",
        "mine.csv row 4: image_id 'im00000' already stands in row 2",
        "mine.csv row 5: image_id 'im7' is not in the data",
        "mine.csv: image 'im00002' has no row",
        "mine.csv: image 'im00003' has no row",
        "mine.csv: no image in part 'test'",
    )


def test_given_split_with_many_missing_images_stays_readable(tmp_path: Path) -> None:
    lines = ["image_id,split", "im00000,train", "im00001,val", "im00002,test"]
    with pytest.raises(DataError) as error:
        given_split(tmp_path, catalog_of({"nv": [1] * 500}), lines)
    assert len(error.value.faults) == 21 and error.value.faults[-1] == "mine.csv: 477 more images have no row"


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe\x00bad", b'a,"b\n1,2', b"image_id;split\na;train\n"])
def test_given_split_file_that_is_no_table_is_refused(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mine.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"mine\.csv.*\nRule: a CSV file with the columns image_id,split"):
        make_split(catalog_of(SMALL), DataConfig(protocol="given", split_file=str(path)))


@pytest.fixture(scope="module")
def real_catalog(ham10000: Path) -> pd.DataFrame:
    return READERS["ham10000"](ham10000)


@pytest.mark.real
def test_lesion_split_of_ham10000_keeps_lesions_apart_at_the_fractions(real_catalog: pd.DataFrame) -> None:
    split = make_split(real_catalog, DataConfig())
    rows = split.table.merge(real_catalog, on="image_id")
    assert len(rows) == 10_015 and rows.groupby("lesion_id")["split"].nunique().max() == 1
    totals = by_class(real_catalog)
    for part, fraction in (("val", 0.15), ("test", 0.15)):
        assert split.info["counts"][part] == {code: round(totals[code] * fraction) for code in CODES}


@pytest.mark.real
def test_published_split_of_ham10000_has_the_published_counts(real_catalog: pd.DataFrame) -> None:
    counts = make_split(real_catalog, DataConfig(protocol="published")).info["counts"]
    assert counts["test"] == PUBLISHED_TEST
    assert {code: counts["train"][code] + counts["val"][code] for code in CODES} == PUBLISHED_TRAIN
    assert all(counts["val"].values())
