"""Records → the report: `index.html`, `summary.csv`, `results.json` and the figures.

For a paper also `tables.tex`, `numbers.tex` and `tables.md`.
With several seeds also `seeds.csv`. With many classes also `per_class.csv` and one
`confusion_<experiment>.csv` for each experiment.
"""

from collections.abc import Mapping

from tlcluster import records
from tlcluster.report.classes import MANY_CLASSES
from tlcluster.report.figures.draw import draw_figures
from tlcluster.report.latex import numbers_tex, tables_tex
from tlcluster.report.markdown import tables_md
from tlcluster.report.page import render_page
from tlcluster.report.paper import paper
from tlcluster.report.pictures import Look, gathered_pictures, kept_pictures
from tlcluster.report.runs import read_run
from tlcluster.report.tables import (
    confusion_csv,
    per_class_csv,
    results_json,
    seeds_csv,
    summary_csv,
)
from tlcluster.report.trained import Run
from tlcluster.storage.protocol import Store


def write_report(store: Store, run_prefix: str = "", look: Look | None = None) -> str:
    """Write the report of a run, finished or not, beside its records.

    The same records make the same bytes.

    Args:
        store: holds the run; for `jobs/report.py` it is the run's folder itself.
        run_prefix: what the run's keys begin with, for example `first/` in a
            store that holds many runs.
        look: reads images of the test split, for the pictures that are not kept with the run;
            None if the data set is away.

    Returns:
        The key of `index.html`, which is written last.

    Raises:
        UserError: there is no run, a record is damaged, or the store cannot be written.
    """
    run = read_run(store, run_prefix)
    folder = f"{run_prefix}{records.REPORT}/"
    # Before the figures, which take seconds: a command that is being stopped may not have them.
    for name, text in tables(run).items():
        store.put(folder + name, text.encode())
    if look is None:
        pictures = kept_pictures(store, run_prefix, run)
    else:
        pictures = gathered_pictures(store, run_prefix, run, look)
    figures = draw_figures(run)
    for figure in figures.values():
        store.put(f"{folder}{figure.name}.svg", figure.svg)
        store.put(f"{folder}{figure.name}.png", figure.png)
    store.put(run_prefix + records.PAGE, render_page(run, figures, pictures).encode())
    return run_prefix + records.PAGE


def tables(run: Run) -> Mapping[str, str]:
    """The files of the report with numbers for other programs: name → content."""
    of, name = paper(run), run.manifest.name
    found = {
        "summary.csv": summary_csv(run),
        "results.json": results_json(run),
        "tables.tex": tables_tex(of, name),
        "numbers.tex": numbers_tex(of, name),
        "tables.md": tables_md(of),
    }
    if run.several:
        found["seeds.csv"] = seeds_csv(run)
    if len(run.manifest.dataset.classes) > MANY_CLASSES:
        # The page shows the extremes only.
        found["per_class.csv"] = per_class_csv(run)
        for one in run.experiments:
            if one.metrics:
                found[f"confusion_{one.name}.csv"] = confusion_csv(one.metrics)
    return found
