"""A recipe file changes the study's experiments and adds others; an error in it is one line."""

import os
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlcluster.backbones import BACKBONES
from tlcluster.errors import UserError
from tlcluster.experiments import EXPERIMENTS, RECIPE, Experiment
from tlcluster.recipe_files import MOST_BYTES, PROFILES, profile_name
from tlcluster.recipes import Recipe, resolve
from tlcluster.settings import RunSettings

Resolved = Callable[..., Recipe]


@pytest.fixture
def resolved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Resolved:
    """`resolved(TEXT, *SETS, epochs=…, chosen=…)` is the recipe of a file `r.toml`."""
    monkeypatch.chdir(tmp_path)

    def of(text: str | bytes, *changes: str, **flags: Any) -> Recipe:
        content = text if isinstance(text, bytes) else text.encode()
        Path("r.toml").write_bytes(content)
        return resolve("r.toml", changes, flags.get("epochs"), flags.get("chosen"))

    return of


def built_in(profile: str) -> dict[str, Experiment]:
    return {one.name: one for one in resolve(profile, (), None, None).experiments}


def by_name(recipe: Recipe) -> dict[str, Experiment]:
    return {one.name: one for one in recipe.experiments}


# --- the built-in profiles ---------------------------------------------------------------------


def test_the_paper_profile_is_the_study() -> None:
    assert built_in("paper") == EXPERIMENTS


def test_the_quick_profile_changes_epochs_batch_and_how_the_base_is_trained() -> None:
    quick = {"epochs": 12, "global_batch": 25}
    finetuned = {**quick, "epochs": 6, "learning_rate": 5e-5, "preprocess": "base"}
    assert built_in("quick") == {
        name: one.model_copy(update=finetuned if name == "finetuned" else quick)
        for name, one in EXPERIMENTS.items()
    }


@pytest.mark.parametrize("profile", PROFILES)
def test_a_built_in_profile_is_a_recipe_file_like_a_user_s(
    profile: str, resolved: Resolved
) -> None:
    assert by_name(resolved(PROFILES[profile].read_text())) == built_in(profile)


# --- what a file does --------------------------------------------------------------------------

WIDE = """
profile = "quick"
[every]
epochs = 20
[experiments.finetuned]
learning_rate = 3e-4
[experiments.wide]
like = "frozen"
base = "vgg19"
dense_units = 2048
weight_decay = 1e-4
"""


def test_a_file_changes_known_experiments_and_adds_others(resolved: Resolved) -> None:
    quick = built_in("quick")
    expected = {name: one.model_copy(update={"epochs": 20}) for name, one in quick.items()}
    expected["finetuned"] = expected["finetuned"].model_copy(update={"learning_rate": 3e-4})
    fields = {"base": "vgg19", "dense_units": 2048, "weight_decay": 1e-4}
    about = {
        "name": "wide",
        "title": "Model 5",
        "summary": "like frozen, base vgg19, dense units 2048, weight decay 0.0001",
    }
    expected["wide"] = expected["frozen"].model_copy(update={**fields, **about})
    recipe = resolved(WIDE)
    assert by_name(recipe) == expected
    assert recipe.chosen == recipe.experiments
    assert recipe.text == WIDE
    assert recipe.profile == "r"


def test_a_fifth_experiment_with_weight_decay_is_two_lines_in_a_file(resolved: Resolved) -> None:
    *study, fifth = resolved("[experiments.decayed]\nweight_decay = 1e-4\n").experiments
    assert study == list(EXPERIMENTS.values())
    frozen = EXPERIMENTS["frozen"].model_dump(include=set(RECIPE))
    assert fifth.model_dump(include=set(RECIPE)) == {**frozen, "weight_decay": 1e-4}


@pytest.mark.parametrize("taps", ["block4,block3,last", " last, block3 ,block4"])
def test_taps_have_one_order_however_they_are_written(taps: str, resolved: Resolved) -> None:
    recipe = resolved("", f"frozen.taps={taps}", chosen="frozen")
    assert recipe.chosen[0].taps == "block3,block4,last"


def test_without_a_profile_a_file_builds_on_the_study(resolved: Resolved) -> None:
    assert by_name(resolved("")) == EXPERIMENTS


def test_experiments_come_in_the_study_s_order_and_then_in_the_file_s(resolved: Resolved) -> None:
    text = "[experiments.b]\nlike='a'\n[experiments.finetuned]\nepochs=3\n[experiments.a]\n"
    assert list(by_name(resolved(text))) == [*EXPERIMENTS, "b", "a"]


def test_a_new_experiment_starts_from_all_that_the_file_says_of_the_other(
    resolved: Resolved,
) -> None:
    text = """
    [experiments.third]
    like = "second"
    dropout = 0.3
    [experiments.second]
    like = "regularized"
    title = "Second"
    summary = "less dropout"
    patience = 3
    [experiments.regularized]
    dropout = 0.1
    """
    all_of_it = by_name(resolved(text, "regularized.dense_units=64"))
    second, third = all_of_it["second"], all_of_it["third"]
    assert (second.dropout, second.batch_norm, second.patience) == (0.1, True, 3)
    assert (second.title, second.summary) == ("Second", "less dropout")
    assert (third.dropout, third.batch_norm, third.patience) == (0.3, True, 3)
    assert (third.title, third.summary) == ("Model 5", "like second, dropout rate 0.3")
    # A flag changes the experiment that it names and no other.
    assert (all_of_it["regularized"].dense_units, second.dense_units) == (64, 512)


def test_flags_win_over_the_file_and_reach_its_experiments(resolved: Resolved) -> None:
    changes = ("*.patience=7", "wide.dense_units=64", "finetuned.learning_rate=0.1")
    found = by_name(resolved(WIDE, *changes, epochs=2))
    assert {(one.patience, one.epochs) for one in found.values()} == {(7, 2)}
    assert (found["wide"].dense_units, found["finetuned"].learning_rate) == (64, 0.1)


def test_any_of_the_experiments_can_be_chosen(resolved: Resolved) -> None:
    recipe = resolved(WIDE, chosen="wide, augmented")
    assert [one.name for one in recipe.chosen] == ["augmented", "wide"]
    assert len(recipe.experiments) == 5


def test_a_file_of_windows_is_read(resolved: Resolved) -> None:
    assert by_name(resolved(b"\xef\xbb\xbf[every]\r\nepochs = 3\r\n"))["frozen"].epochs == 3


@pytest.mark.parametrize(
    ("profile", "name"),
    [
        ("quick", "quick"),
        ("wide.toml", "wide"),
        ("some/folder/wide.v2.toml", "wide-v2"),
        ("./recipe", "recipe"),
        ("/x/my recipe (2).toml", "my-recipe-2"),
        ("/x/äöü.toml", "recipe"),
        ("/x/.toml", "recipe"),
        ("x" * 90 + ".toml", "x" * 40),
    ],
)
def test_a_run_is_called_after_its_file(profile: str, name: str) -> None:
    assert profile_name(profile) == name


def test_the_seed_of_the_views_is_the_flags_the_files_or_that_of_the_profile_it_builds_on(
    tmp_path: Path,
) -> None:
    file = tmp_path / "r.toml"
    for text, seed in (
        ("", None),
        ("view_seed = 0", 0),
        ("profile = 'quick'", 524),
        ("profile = 'quick'\nview_seed = 7", 7),
    ):
        file.write_text(text)
        assert resolve(str(file), (), None, None).view_seed == seed
        assert resolve(str(file), (), None, None, view_seed=9).view_seed == 9
    assert resolve("paper", (), None, None).view_seed is None
    # So that the default seed of `quick` has the views that it always had.
    assert resolve("quick", (), None, None).view_seed == RunSettings().seed


# --- what is wrong in a file -------------------------------------------------------------------

KNOWN = "frozen, augmented, regularized, finetuned"
KEYS = ", ".join(RECIPE)
INTEGER, NUMBER = "input should be a valid integer", "input should be a valid number"

REFUSED = {
    "[evry]\nx = 1": "evry: no such key; did you mean every? allowed: profile, view_seed, every, "
    "experiments",
    "view_seed = -1": "view_seed = -1: give a whole number from 0 to 2147483647",
    "view_seed = true": "view_seed = true: give a whole number from 0 to 2147483647",
    "view_seed = '7'": 'view_seed = "7": give a whole number from 0 to 2147483647',
    "[every]\nepoch = 1": f"every.epoch: no such key; did you mean epochs? allowed: {KEYS}",
    "[every]\nlike = 'frozen'": f"every.like: no such key; allowed: {KEYS}",
    "[experiments.frozen]\ndense_unit = 1": "experiments.frozen.dense_unit: no such key; did you "
    f"mean dense_units? allowed: like, title, summary, {KEYS}",
    "[every]\nepochs = '20'": f'every.epochs = "20": {INTEGER}',
    "[every]\nepochs = 2.0": f"every.epochs = 2.0: {INTEGER}",
    "[every]\nepochs = true": f"every.epochs = true: {INTEGER}",
    "[every]\nepochs = 2026-01-01": f"every.epochs = 2026-01-01: {INTEGER}",
    "[every]\ndropout = [0.1]": f"every.dropout = [0.1]: {NUMBER}",
    "[every.dropout]\nx = 1": f"every.dropout = {{'x': 1}}: {NUMBER}",
    "[every]\naugment = 1": "every.augment = 1: input should be a valid boolean",
    "[every]\nepochs = 0": "every.epochs = 0: input should be greater than 0",
    "[every]\nlearning_rate = nan": "every.learning_rate = nan: input should be a finite number",
    "[every]\nbase = 'vgg17'": 'every.base = "vgg17": no such base; did you mean vgg19 or vgg16? '
    "allowed: vgg16, vgg19, resnet50, mobilenet_v2",
    "[every]\ntaps = 'block6'": "every.taps = \"block6\": the base vgg16 has no block 'block6'; "
    "did you mean block5 or block4? allowed: block1, block2, block3, block4, block5, last",
    "[every]\ntaps = 'block1,block1'": 'every.taps = "block1,block1": has block1 twice; name each '
    "once",
    "[every]\ntaps = ''": "every.taps = \"\": the base vgg16 has no block ''; allowed: block1, "
    "block2, block3, block4, block5, last",
    "[every]\ntaps = 'block4'\n[experiments.b]\nbase = 'resnet50'": (
        "experiments.b.taps = \"block4\": the base resnet50 has no block 'block4'; did you mean "
        "conv4_block4 or conv3_block4? allowed: "
        + ", ".join((*BACKBONES["resnet50"].blocks, "last"))
    ),
    "[every]\ntrainable_from = 'block0'": 'every.trainable_from = "block0": the base vgg16 has no '
    "block 'block0'; did you mean block5 or block4? allowed: first, block1, block2, block3, "
    "block4, block5",
    "[every]\ntrainable_from = 'block4'\ntaps = 'block2,block3'": "every.trainable_from = "
    '"block4": the head is on block2,block3, so that no block from block4 on is used; give block3 '
    "or a block "
    "below, or other taps",
    "[every]\nmixup = 0.2": "every.mixup = 0.2: images are mixed, and a frozen base keeps features "
    "of single images; give 0, or set base_trainable",
    "every = 3": "every = 3: give a table of keys and values",
    "[experiments]\nwide = 3": "experiments.wide = 3: give a table of keys and values",
    "profile = 'other.toml'": 'profile = "other.toml": a file builds on a built-in profile; '
    "allowed: paper, quick",
    "profile = 'papr'": 'profile = "papr": a file builds on a built-in profile; did you mean paper?'
    " allowed: paper, quick",
    "[experiments.wide]\nlike = 'frosen'": 'experiments.wide.like = "frosen": no such experiment; '
    f"did you mean frozen? allowed: {KNOWN}",
    "[experiments.wide]\nlike = 'wide'": 'experiments.wide.like = "wide": a circle, wide → wide; '
    "start from another",
    "[experiments.a]\nlike = 'b'\n[experiments.b]\nlike = 'a'": 'experiments.b.like = "a": a '
    "circle, a → b → a; start from another",
    "[experiments.frozen]\nlike = 'augmented'": "experiments.frozen.like: only a new experiment "
    "has it, and frozen is a known one",
    "[experiments.wide]\nlike = 3": "experiments.wide.like = 3: give one line of text, 1 to 100 "
    "characters",
    '[experiments.wide]\ntitle = "\\u001b[2J"': 'experiments.wide.title = "\x1b[2J": give one line '
    "of text, 1 to 40 characters",
    "[experiments.report]": 'experiments."report": a run has a folder of this name; choose another '
    "name",
    "[experiments.Features]": 'experiments."Features": a run has a folder of this name; choose '
    "another name",
    "[experiments.Frozen]": 'experiments."Frozen": differs from frozen in upper and lower case '
    "only; some file systems do not tell them apart: choose another name",
    "[every": "line 1, column 7: expected ']' at the end of a table declaration; the file is not "
    "TOML",
    'x = """a\nb': "line 2, column 2: unterminated string; the file is not TOML",
    "[every]\nepochs = ": "line 2, column 10: invalid value; the file is not TOML",
    f"[every]\nepochs = {'9' * 9000}": "a number has too many digits",
    f"[every]\nlearning_rate = 0x{'f' * 9000}": "every.learning_rate = a number of thousands of "
    f"digits: {NUMBER}",
    f"x = {'[' * 9000}": "nested too deeply; a recipe has tables of keys and values",
}


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_what_is_wrong_in_a_file_is_one_line_with_its_key(text: str, resolved: Resolved) -> None:
    with pytest.raises(UserError) as caught:
        resolved(text)
    assert str(caught.value) == f"r.toml: {REFUSED[text]}"


@pytest.mark.parametrize("name", ["a/b", "..", "", "a.b", "-a", "é", "x" * 101, "a b"])
def test_an_experiment_s_name_is_a_safe_name_of_a_folder(name: str, resolved: Resolved) -> None:
    with pytest.raises(UserError, match="the name of an experiment is 1 to 100 letters, digits"):
        resolved(f'[experiments."{name}"]\n')


def test_a_file_that_is_not_utf_8_is_refused_with_the_line(resolved: Resolved) -> None:
    with pytest.raises(UserError, match=r"^r\.toml: line 2 is not UTF-8; save the file as UTF-8$"):
        resolved(b"[every]\n# caf\xe9\n")


def test_a_file_has_a_bounded_number_of_experiments(resolved: Resolved) -> None:
    def text(number: int) -> str:
        return "".join(f"[experiments.e{one}]\n" for one in range(number))

    assert len(resolved(text(100)).experiments) == 104
    with pytest.raises(UserError, match="has 101 experiments; a file has at most 100"):
        resolved(text(101))


def test_a_file_of_bounded_size_is_read_and_no_other(resolved: Resolved) -> None:
    assert resolved("#" * MOST_BYTES).experiments
    with pytest.raises(UserError, match="has more than 1,000,000 bytes"):
        resolved("#" * (MOST_BYTES + 1))


@pytest.mark.parametrize("kind", ["pipe", "zero", "folder"])
def test_what_is_no_plain_file_is_refused_and_not_read(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "zero":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    with pytest.raises(UserError, match="is not a plain file; name a TOML file"):
        resolve(str(path), (), None, None)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("none.toml", "no such file or directory"),
        ("a/../b", "no such file or directory"),
        ("x" * 300 + ".toml", "file name too long"),
        ("x\0.toml", "embedded null byte"),
    ],
    ids=["missing", "folder", "long", "null"],
)
def test_a_file_that_cannot_be_read_is_named(path: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        resolve(path, (), None, None)
    assert str(caught.value) == (
        f"--profile {path}: {reason}; name a TOML file that can be read, or a profile: paper, quick"
    )


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "epochs": st.integers(1, 50),
        "dense_units": st.integers(1, 4096),
        "dropout": st.floats(0, 0.9),
        "augment": st.booleans(),
        "learning_rate": st.floats(1e-6, 1),
    },
)


@given(every=FIELDS, own=FIELDS)
def test_a_file_and_flags_that_say_the_same_give_the_same(
    every: dict[str, Any], own: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    def lines(fields: dict[str, Any]) -> str:
        return "".join(f"{k} = {str(v).lower()}\n" for k, v in fields.items())

    file = tmp_path_factory.getbasetemp() / "same.toml"
    file.write_text(f"[every]\n{lines(every)}[experiments.finetuned]\n{lines(own)}")
    flags = [f"*.{k}={v}" for k, v in every.items()]
    flags += [f"finetuned.{k}={v}" for k, v in own.items()]
    by_file = resolve(str(file), (), None, None)
    assert by_file.experiments == resolve("paper", flags, None, None).experiments


# --- docs/recipes.md ---------------------------------------------------------------------------

MANUAL = (Path(__file__).parent.parent / "docs/recipes.md").read_text()


def test_the_example_of_the_manual_is_a_recipe(resolved: Resolved) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", MANUAL, re.DOTALL)
    assert by_name(resolved(example)) == by_name(resolved(WIDE))


def test_the_manual_has_every_field_with_its_default() -> None:
    shown = dict(re.findall(r"(?m)^\| `(\w+)` \| .* \| (?:`(.*)`)? ?\|$", MANUAL))
    assert list(shown) == list(RECIPE)
    for field, default in shown.items():
        value = Experiment.model_fields[field].default
        if default:
            assert tomllib.loads(f"x = {default}") == {"x": value}
        else:
            assert Experiment.model_fields[field].is_required()


def test_the_errors_of_the_manual_are_those_of_the_program(resolved: Resolved) -> None:
    def said(text: str) -> str:
        with pytest.raises(UserError) as caught:
            resolved(text)
        return f"error: {caught.value}".replace("r.toml", "wide.toml")

    texts = (
        "[every]\nepoch = 20",
        "[every]\nepochs = '20'",
        "[experiments.wide]\nlike = 'frosen'",
        "\n\n[every",
    )
    for text, line in zip(texts, re.findall(r"(?m)^    (error: .*)$", MANUAL), strict=True):
        assert said(text).startswith(line.removesuffix("…"))
