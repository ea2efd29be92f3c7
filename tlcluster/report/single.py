"""Single test images in `results.json`: mistakes, and what the experiments dispute."""

from typing import Any

from tlcluster import cinic10
from tlcluster.report.mistakes import Mistake, Said
from tlcluster.report.trained import Run


def origin_in(run: Run, source: str) -> str | None:
    """Where a test image comes from; None unless the data set is CINIC-10."""
    return cinic10.origin_of(source) if run.manifest.dataset.name == cinic10.NAME else None


def mistakes_of(run: Run, name: str) -> dict[str, Any]:
    """The fields of an experiment about its mistakes; see `tlcluster.report.results`."""
    found = run.gallery
    return {
        "mistakes": [_mistake(run, one) for one in found.confident.get(name, ())],
        "mistakes_by_class": [_mistake(run, one) for one in found.by_class.get(name, {}).values()],
    }


def disputed(run: Run) -> list[dict[str, Any]]:
    """The images on which the experiments disagree."""
    return [
        {
            "image": one.image,
            "source": one.source,
            "origin": origin_in(run, one.source),
            "true": run.manifest.dataset.classes[one.true],
            "said": [{"experiment": said.experiment, **_said(run, said)} for said in one.said],
        }
        for one in run.gallery.disputed
    ]


def _mistake(run: Run, one: Mistake) -> dict[str, Any]:
    return {
        "image": one.image,
        "source": one.source,
        "origin": origin_in(run, one.source),
        "true": run.manifest.dataset.classes[one.true],
        **_said(run, one.said),
    }


def _said(run: Run, said: Said) -> dict[str, Any]:
    return {
        "predicted": run.manifest.dataset.classes[said.predicted],
        "probability": said.probability,
    }
