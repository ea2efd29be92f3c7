"""Tables for a paper: LaTeX and Markdown with the numbers of the report."""

import re
import shutil
import subprocess
from pathlib import Path

import fake_run
import pytest

from tlcluster.report import latex, markdown
from tlcluster.report.paper import Number, Paper, Table, paper
from tlcluster.report.runs import read_run
from tlcluster.report.trained import Run
from tlcluster.report.write import tables
from tlcluster.storage.directory import DirectoryStore


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    found = {}
    small = {**fake_run.manifest().dataset.model_dump(), "splits": {"train": 90_000, "test": 60}}
    for name, write in {
        "one seed": lambda store: fake_run.write_run(store, fake_run.manifest(dataset=small)),
        "several": lambda store: fake_run.write_seeds_run(store, test_images=60),
        "hostile": fake_run.write_hostile_run,
        "empty": lambda store: fake_run.write_run(store, fake_run.manifest(), finished=[]),
    }.items():
        store = DirectoryStore(tmp_path_factory.mktemp("paper"))
        write(store)
        found[name] = read_run(store)
    return found


RUNS = ("one seed", "several", "hostile", "empty")


@pytest.mark.parametrize("name", RUNS)
def test_every_number_in_a_table_is_a_macro_and_each_has_one_value(
    name: str, runs: dict[str, Run]
) -> None:
    files = tables(runs[name])
    defined = re.findall(
        r"^\\newcommand\{\\([a-zA-Z]+)\}\{(.+)\}$", files["numbers.tex"], re.MULTILINE
    )
    assert len(defined) == files["numbers.tex"].count("\n") - 1
    assert len(dict(defined)) == len(defined)
    used = re.findall(r"\\(tlc[a-zA-Z]*)\{\}", files["tables.tex"])
    assert set(used) <= dict(defined).keys()
    assert len(set(used)) == len(used)
    # What is beside the macros has no number of its own, but for names, seeds and captions.
    for line in files["tables.tex"].splitlines():
        if line.startswith("{}") and name != "hostile":
            cells = re.sub(r"\\tlc[a-zA-Z]+\{\}|95 \\%|F1", "", line).split(" & ")
            assert re.findall(r"\d", "".join(cells[:1] + cells[2:])) == []


@pytest.mark.parametrize("name", RUNS)
def test_a_table_has_a_cell_for_each_column_and_nothing_that_latex_refuses(
    name: str, runs: dict[str, Run]
) -> None:
    files = tables(runs[name])
    for text in (files["tables.tex"], files["numbers.tex"]):
        assert text.isascii()
        lines = [line for line in text.splitlines() if not line.startswith("%")]
        assert all(re.sub(r"\\\\|\\[{}]", "", line).count("{") ==
                   re.sub(r"\\\\|\\[{}]", "", line).count("}") for line in lines)  # fmt: skip
        # An escaped one follows a backslash.
        assert [line for line in lines if re.search(r"(?<!\\)[%#_]", line)] == []
    for columns, body in re.findall(
        r"\\begin\{tabular\}\{@\{\}([lr]+)@\{\}\}(.*?)\\end\{tabular\}",
        files["tables.tex"],
        re.DOTALL,
    ):
        rows = [line for line in body.splitlines() if line.startswith("{}")]
        assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {len(columns) - 1}
    for block in files["tables.md"].split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


def test_the_numbers_are_those_of_the_page(runs: dict[str, Run]) -> None:
    run = runs["several"]
    numbers = {one.name: one.text for one in paper(run).numbers}
    frozen, *_ = run.experiments
    assert frozen.accuracy is not None
    assert frozen.accuracy.spread is not None
    assert numbers["tlcFrozenAccuracy"] == f"{100 * frozen.accuracy.mean:.1f}"
    assert numbers["tlcFrozenAccuracySd"] == f"{100 * frozen.accuracy.spread:.1f}"
    assert numbers["tlcFrozenSeeds"] == "5"
    assert numbers["tlcAugmentedSeeds"] == "4"
    assert numbers["tlcFrozenTrainableParameters"] == "267,786"
    first = run.contrasts[0]
    difference = numbers["tlcFrozenVersusAugmentedDifference"]
    assert float(difference) == pytest.approx(100 * first.difference, abs=0.06)
    assert "tlcFrozenPredictionLow" in numbers
    assert "tlcFrozenPredictionLow" not in {one.name for one in paper(runs["one seed"]).numbers}


def test_names_that_become_equal_letters_get_different_macros(runs: dict[str, Run]) -> None:
    run = runs["one seed"]
    twins = tuple(
        one._replace(name=name)
        for one, name in zip(run.experiments, ("a-1", "a1", "A.1", "b"), strict=True)
    )
    names = [one.name for one in paper(run._replace(experiments=twins, contrasts=())).numbers]
    assert len(set(names)) == len(names)
    assert {"tlcAOneAccuracy", "tlcAOneAccuracyOther", "tlcAOneAccuracyOtherOther"} <= set(names)
    assert all(name.isalpha() for name in names)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"50 % of a_b & c#d", r"50 \% of a\_b \& c\#d"),
        (
            r"\input{x}$y^2$~",
            r"\textbackslash{}input\{x\}\$y\textasciicircum{}2\$\textasciitilde{}",
        ),
        ("a--b <c> | `d`", r"a-{}-b \textless{}c\textgreater{} \textbar{} 'd'"),
        ("é ü ç Ž e\u0301", r"\'{e} \"{u} \c{c} \v{Z} \'{e}"),
        ("小 \u202e \x00\n\tx", "[U+5C0F] x"),
        ("− ± –", r"$-$ $\pm$ --"),
    ],
)
def test_a_hostile_text_is_only_text_in_latex(text: str, expected: str) -> None:
    assert latex.escaped(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b_c*d`e", r"a\|b\_c\*d\`e"),
        ("<b>[x](y)\n| z", r"\<b\>\[x\](y) \| z"),
        ("小熊貓", "小熊貓"),
    ],
)
def test_a_hostile_text_is_only_text_in_markdown(text: str, expected: str) -> None:
    assert markdown.escaped(text) == expected


def test_signs_are_set_in_math_mode() -> None:
    numbers = (Number("tlcA", "-1.2"), Number("tlcB", "< 0.001"), Number("tlcC", "1,234"))
    text = latex.numbers_tex(Paper((), numbers), "x")
    assert r"\newcommand{\tlcA}{\ensuremath{-1.2}}" in text
    assert r"\newcommand{\tlcB}{\ensuremath{<0.001}}" in text
    assert r"\newcommand{\tlcC}{1,234}" in text


def test_a_cell_that_begins_like_an_argument_is_none() -> None:
    table = Table("x", "", ("[2pt]", "b"), 1, ((("*",), ()),))
    text = latex.tables_tex(Paper((table,), ()), "x")
    assert "{}[2pt] & b \\\\\n\\midrule\n{}* &  \\\\" in text


LATEX = {"pdflatex": ["-interaction=nonstopmode", "-halt-on-error"], "tectonic": []}


@pytest.mark.parametrize("name", RUNS)
def test_latex_sets_the_tables_and_every_number(
    name: str, runs: dict[str, Run], tmp_path: Path
) -> None:
    engine = next((engine for engine in LATEX if shutil.which(engine)), None)
    if engine is None:
        pytest.skip(
            "needs pdflatex or tectonic (Debian: apt-get install texlive-latex-recommended)"
        )
    files = tables(runs[name])
    for file in ("numbers.tex", "tables.tex"):
        (tmp_path / file).write_text(files[file])
    macros = " ".join(f"\\{one.name}" for one in paper(runs[name]).numbers)
    (tmp_path / "paper.tex").write_text(
        "\\documentclass{article}\\usepackage{booktabs}\\input{numbers}\n"
        f"\\begin{{document}}\\input{{tables}} x {macros}\\end{{document}}\n"
    )
    done = subprocess.run(
        [engine, *LATEX[engine], "paper.tex"],
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert (tmp_path / "paper.pdf").stat().st_size > 1000
