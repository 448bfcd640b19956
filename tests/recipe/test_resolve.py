from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from avsbench_harness.errors import UsageError
from avsbench_harness.method import from_folder, methods
from avsbench_harness.recipe.resolve import merge, resolve
from avsbench_harness.recipe.schema import Recipe
from avsbench_harness.tasks import TASKS


@pytest.fixture
def method(tiny: str):
    return from_folder(Path(tiny))


def test_overrides_apply_in_order(method, tmp_path: Path) -> None:
    assert resolve(method, TASKS["s4"], "r50").epochs == 3
    assert resolve(method, TASKS["ms3"], "r50").epochs == 2
    swin = resolve(method, TASKS["ms3"], "swin_t")
    assert (swin.epochs, swin.optimizer.lr, swin.optimizer.weight_decay) == (2, 5e-3, 0.01)
    file = tmp_path / "mine.yaml"
    file.write_text("optimizer: {lr: 1.0e-3}\nbatch_size: 4\n")
    mine = resolve(method, TASKS["s4"], "r50", file=file, assignments=["batch_size=8", "options.width=4"])
    assert (mine.optimizer.lr, mine.batch_size, mine.options) == (1e-3, 8, {"width": 4})


def test_iterations_replace_epochs(method) -> None:
    recipe = resolve(method, TASKS["s4"], "r50", assignments=["iterations=7"])
    assert (recipe.iterations, recipe.epochs) == (7, None)
    with pytest.raises(UsageError, match="here: a recipe has either epochs or iterations, not both"):
        Recipe.parse({"epochs": 1, "iterations": 1}, "here")


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("optimizer.lrr=1", r"Unknown key 'optimizer.lrr' in --set optimizer.lrr=1. Did you mean 'lr'\?"),
        ("epoch=1", r"Unknown key 'epoch' .* Did you mean 'epochs'\?"),
        ("batch_size=none", "'batch_size' is 'none', but"),
        ("optimizer.lr=-1", "'optimizer.lr' is -1, but"),
        ("precision=fp8", "'precision' is 'fp8', but"),
        ("augment=[flip]", r"'augment' is \['flip'\], but"),
        ("augment.flip=2", "'augment.flip' is 2, but"),
        ("fit=crop", "'fit' is 'crop', but"),
        ("optimizer.lr=.inf", "'optimizer.lr' is inf, but input should be a finite number"),
        ("optimizer.lr=.nan", "'optimizer.lr' is nan, but"),
        ("optimizer.lr=1e999", "'optimizer.lr' is inf, but"),
        ("optimizer.lr=true", "'optimizer.lr' is True, but"),
        ("optimizer.lr='1'", "'optimizer.lr' is '1', but"),
        ("optimizer.betas=[0.9, 2]", "'optimizer.betas.1' is 2, but input should be less than 1"),
        ("batch_size=true", "'batch_size' is True, but"),
        ("batch_size=010", "'batch_size' is '010', but"),
        ("batch_size=2.0", "'batch_size' is 2.0, but"),
        ("epochs=1:30", "'epochs' is '1:30', but"),
        ("channels_last=yes", "'channels_last' is 'yes', but"),
        ("channels_last=1", "'channels_last' is 1, but"),
        ("image_size=100000", "'image_size' is 100000, but"),
        ("backbone.freeze_epochs=-1", "'backbone.freeze_epochs.* is -1, but"),
        ("schedule.name=step", "the schedule step needs milestones, such as"),
        ("schedule={name: step, milestones: [3, 2]}", "milestones of a schedule must ascend"),
        ("options.width=.inf", "'options' is .*, but it has inf, which is not a finite number"),
        ("options={a: 1, a: 2}", "the key 'a' is given twice"),
        ("options=&x [*x]", "aliases are not supported"),
        ("a..b=1", "'a..b' in --set is not a key"),
        (".".join("a" * 100) + "=1", "in --set is not a key"),
        ("batch_size", "takes key=value"),
        ("batch_size=[", "not valid YAML"),
    ],
)
def test_bad_assignments_are_one_sentence(method, assignment: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        resolve(method, TASKS["s4"], "r50", assignments=[assignment])
    assert "\n" not in str(caught.value)


def test_numbers_with_an_exponent_are_numbers(method) -> None:
    recipe = resolve(method, TASKS["s4"], "r50", assignments=["optimizer.lr=1e-4", "options.dropout=1E-1"])
    assert (recipe.optimizer.lr, recipe.options) == (1e-4, {"dropout": 0.1})


def test_unknown_preset_suggests(method) -> None:
    with pytest.raises(UsageError, match="Did you mean 'smoke'"):
        resolve(method, TASKS["s4"], "r50", preset="smokee")


def test_overrides_of_a_variant_come_last(method, tmp_path: Path) -> None:
    """Base, tasks, backbones, then the same three of the variant, then the user's."""
    folder = tmp_path / "method"
    shutil.copytree(method.folder, folder)
    layers = "  variants:\n    paper:\n      base: {batch_size: 7, epochs: 9, optimizer: {lr: 0.5}}\n"
    layers += "      tasks: {ms3: {iterations: 11}}\n      backbones: {r50: {clip_norm: 2.0}}\n"
    path = folder / "recipes.yaml"
    path.write_text(path.read_text().replace("smoke:\n", f"{layers}smoke:\n"))
    copy = from_folder(folder)
    plain = resolve(copy, TASKS["ms3"], "swin_t")
    assert (plain.batch_size, plain.epochs, plain.optimizer.lr) == (2, 2, 5e-3)
    assert resolve(copy, TASKS["ms3"], "swin_t", variant="released") == plain
    paper = resolve(copy, TASKS["ms3"], "swin_t", variant="paper")
    assert (paper.batch_size, paper.iterations, paper.epochs, paper.optimizer.lr) == (7, 11, None, 0.5)
    assert paper.image_size == plain.image_size
    assert (paper.clip_norm, resolve(copy, TASKS["s4"], "r50", variant="paper").clip_norm) == (None, 2.0)
    assert resolve(copy, TASKS["s4"], "r50", variant="paper").epochs == 9
    mine = resolve(copy, TASKS["s4"], "r50", variant="paper", assignments=["batch_size=3"])
    assert mine.batch_size == 3


def test_validation_in_epochs_or_in_steps(method) -> None:
    def rule(*assignments: str) -> tuple[int, int, int | None]:
        found = resolve(method, TASKS["s4"], "r50", assignments=assignments).validation
        return found.every, found.first, found.every_steps

    assert rule() == (1, 1, None)
    assert rule("validation.every=3", "validation.every_steps=400") == (1, 1, 400)
    assert rule("validation.every_steps=400", "validation.first=2") == (1, 2, None)
    with pytest.raises(UsageError, match="either in epochs .* or in every_steps, not both"):
        resolve(method, TASKS["s4"], "r50", assignments=["validation={every: 2, every_steps: 3}"])


def test_overrides_add_and_remove_parts_of_the_augmentation(method) -> None:
    recipe = resolve(
        method,
        TASKS["s4"],
        "r50",
        assignments=["augment.scale.factors=[0.5, 2]", "augment.jitter={hue: 9}", "augment.jitter.hue=10"],
    )
    assert recipe.augment.flip == 0.5  # of the method's own file
    assert recipe.augment.scale is not None
    assert recipe.augment.scale.factors == [0.5, 2.0]
    assert recipe.augment.jitter is not None
    assert (recipe.augment.jitter.hue, recipe.augment.jitter.probability) == (10, 0.5)
    assert Recipe.parse(recipe.to_dict(), "here") == recipe
    without = resolve(
        method, TASKS["s4"], "r50", assignments=["augment.affine={rotation: 5}", "augment.affine=null"]
    )
    assert without.augment.affine is None


def test_merge_replaces_lists_and_merges_mappings() -> None:
    assert merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}, "d": 1}


def test_every_recipe_of_every_method_is_valid() -> None:
    seen = 0
    for entry in methods().values():
        plugin = entry.require()
        for preset in ("full", "mini", "smoke"):
            for task in plugin.tasks:
                for backbone in plugin.backbones:
                    recipe = resolve(plugin, TASKS[task], backbone, preset=preset)
                    assert recipe.source
                    seen += 1
    assert seen


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must hold keys and values"),
        ("{}\n", "has no preset"),
        ("full:\n", "Preset 'full' of .* is empty"),
        ("full: 3\n", "Preset 'full' of .* must be a mapping, not 3"),
        ("full: {base: }\n", "'base' of Preset 'full' of .* is empty"),
        ("full: {base: {epochs: 1}, tasks: {s4: }}\n", "'tasks.s4' of Preset 'full' of .* is empty"),
        ("full: {tasks: {s4: {backbones: [r50]}}}\n", "must be a mapping, not \\['r50'\\]"),
        ("full: {variants: {released: {base: }}}\n", "'base' of 'variants.released' of .* is empty"),
        ("full: {variants: {released: {bases: {}}}}\n", "has 'bases' beside base, tasks and backbones"),
        ("full: {base: {epochs: 1}, extra: {}}\n", "has 'extra' beside base, tasks, backbones and variants"),
        ("full: {base: {}}\nsmoke:\n", "Preset 'smoke' of .* is empty"),
        ("full: {base: {batch_size: 2}}\n", "a recipe needs either epochs or iterations"),
        (None, "There is no file"),
    ],
)
def test_odd_presets_are_one_sentence(method, tmp_path: Path, text: str | None, message: str) -> None:
    folder = tmp_path / "method"
    shutil.copytree(method.folder, folder)
    if text is None:
        (folder / "recipes.yaml").unlink()
    else:
        (folder / "recipes.yaml").write_text(text)
    with pytest.raises(UsageError, match=message) as error:
        resolve(from_folder(folder), TASKS["s4"], "r50")
    assert "\n" not in str(error.value)
