"""The rows of an ablation: each is a recipe that can work, and differs from the control in what it is named for."""

import pytest

from dermdistill.config import Recipe
from dermdistill.errors import ConfigError
from dermdistill.pipeline.ablation_rows import CONTROL, GROUPS, ROWS, chosen_rows, row_recipe, searched_rows
from dermdistill.recipes.load import load_recipe

EDGE = load_recipe("edge")
UNTAUGHT = {CONTROL, "no_teacher_fusion", "no_teacher_unmixed", "self_distillation", "focal", "cross_entropy"}
LOADED = [
    "student.distill.attention=100",
    "student.distill.relational=1",
    "student.distill.logits_loss=dist",
    "student.distill.self_distillation=0.3",
    "student.distill.balance=gradient_norm",
    "student.distill.stages=[{depth: 1, beta: 0.2}]",
    "student.distill.other_teachers=[{run: runs/other, weight: 2}]",
]


@pytest.mark.parametrize("name", ROWS)
def test_every_row_of_the_edge_recipe_works_and_stores_its_targets(name: str) -> None:
    recipe = row_recipe(EDGE, name, seed=7)
    assert recipe.seed == 7 and recipe.student.distill.targets == "stored"
    assert recipe.teacher == EDGE.teacher and recipe.data == EDGE.data
    assert recipe.student.epochs == EDGE.student.epochs and (
        recipe.student.loss == EDGE.student.loss or name in ("focal", "cross_entropy")
    )


def test_rows_without_teacher_are_those_that_say_so() -> None:
    alone = {name for name in ROWS if not row_recipe(EDGE, name, seed=0).student.distill.needs_teacher}
    assert alone == UNTAUGHT


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if row.distill is not None])
def test_row_is_what_it_is_called_whatever_the_recipe_distils_by(name: str) -> None:
    """The recipe's own terms belong to its own arm; a control that kept one of them would be taught."""
    loaded = load_recipe("edge", LOADED)
    plain, other = (row_recipe(recipe, name, seed=0).student.distill for recipe in (EDGE, loaded))
    assert other.needs_teacher == (name not in UNTAUGHT)
    assert bool(other.other_teachers) == other.needs_teacher
    assert other.model_copy(update={"other_teachers": ()}) == plain


def test_fused_arm_is_the_recipe_itself() -> None:
    loaded = load_recipe("edge", LOADED)
    arm = row_recipe(loaded, "multi_stage_fusion", seed=0).student
    assert arm == loaded.student.model_copy(
        update={"distill": loaded.student.distill.model_copy(update={"targets": "stored"})}
    )


@pytest.mark.parametrize(
    ("setting", "refused"),
    [
        ("student.model.exits=[]", {"multi_stage", "self_distillation"} | set(searched_rows()) | {"gradient_balance"}),
        ("student.distill.alpha=0", {"multi_stage"} | set(searched_rows()) | {"gradient_balance"}),
        ("student.model.fusion=false", {"no_teacher_fusion"} | set(searched_rows()) | {"gradient_balance"}),
    ],
)
def test_row_that_would_be_another_is_refused(setting: str, refused: set[str]) -> None:
    settings = [setting, *(["student.distill.alpha=0"] if "exits" in setting else [])]
    recipe = load_recipe("edge", settings)
    for name in ROWS:
        if name in refused:
            with pytest.raises(ConfigError, match="its student lacks "):
                row_recipe(recipe, name, seed=0)
        else:
            row_recipe(recipe, name, seed=0)


def test_the_arms_add_one_thing_after_another() -> None:
    def parts(name: str) -> tuple[bool, bool, bool, bool]:
        student = row_recipe(EDGE, name, seed=0).student
        distill = student.distill
        features = distill.alpha * distill.feature_share > 0
        return distill.beta > 0, bool(student.model.exits), student.model.fusion, features

    assert parts(CONTROL) == (False, False, False, False)
    assert parts("single_stage") == (True, False, False, False)
    assert parts("multi_stage") == (True, True, False, False)
    assert parts("multi_stage_fusion") == (True, True, True, True)
    assert parts("no_teacher_fusion") == (False, False, True, False)


def test_the_grid_is_the_published_one() -> None:
    cells = {
        (student.distill.temperature, student.distill.beta, student.distill.gamma)
        for name, row in ROWS.items()
        if row.group == "grid"
        for student in [row_recipe(EDGE, name, seed=0).student]
    }
    assert cells == {(t, a, round(1 - a, 10)) for t in (1.0, 2.0) for a in (0.5, 0.9)}


def test_searched_settings_are_the_fused_arm_with_other_weights() -> None:
    arm = row_recipe(EDGE, "multi_stage_fusion", seed=0).student
    settings = [row_recipe(EDGE, name, seed=0).student for name in searched_rows()]
    assert all(setting.model == arm.model for setting in settings)
    assert len({setting.model_dump_json() for setting in settings}) == len(settings) == 4


def test_a_row_and_its_second_control_differ_in_nothing_but_the_teacher() -> None:
    for name, row in ROWS.items():
        if row.control:
            taught, alone = (row_recipe(EDGE, one, seed=0) for one in (name, row.control))
            assert taught.augment == alone.augment
            assert taught.student.model.fusion == alone.student.model.fusion


def test_chosen_rows_bring_their_controls_in_order() -> None:
    assert chosen_rows(["multi_stage_fusion"]) == [CONTROL, "no_teacher_fusion", "multi_stage_fusion"]
    assert chosen_rows(GROUPS) == list(ROWS)


def test_unknown_row_is_refused() -> None:
    with pytest.raises(ConfigError, match="'grids'"):
        chosen_rows(["arms", "grids"])


def test_row_that_two_classes_cannot_have_is_refused() -> None:
    melanoma: Recipe = load_recipe("melanoma")
    with pytest.raises(ConfigError, match="two classes"):
        row_recipe(melanoma, "logit_std", seed=0)
    assert row_recipe(melanoma, "dist", seed=0).task == "melanoma"


def test_student_of_several_branches_keeps_its_fusion() -> None:
    for name in ("no_teacher_fusion", "multi_stage"):
        with pytest.raises(ConfigError, match="joins several branches by fusion"):
            row_recipe(load_recipe("fusion"), name, seed=0)
    assert row_recipe(load_recipe("fusion"), CONTROL, seed=0).student.model.fusion
