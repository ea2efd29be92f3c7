"""Which trackers the environment asks for, and what is said if one cannot be used."""

from pathlib import Path

import pytest

from tlcluster.tracking import trackers
from tlcluster.tracking.trackers import MLFLOW, WANDB, Tracker, asked, lacking


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"MLFLOW_TRACKING_URI": ""}, {}),
        ({"MLFLOW_EXPERIMENT_NAME": "x"}, {}),
        ({"MLFLOW_TRACKING_URI": "http://h"}, {MLFLOW: "MLFLOW_TRACKING_URI"}),
        ({"WANDB_PROJECT": "p", "WANDB_API_KEY": "k"}, {WANDB: "WANDB_API_KEY"}),
        ({"WANDB_MODE": "offline"}, {WANDB: "WANDB_MODE"}),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "k"}, {}),
        ({"WANDB_DISABLED": "true", "WANDB_API_KEY": "k"}, {}),
        ({"WANDB_DISABLED": "false", "WANDB_API_KEY": "k"}, {WANDB: "WANDB_API_KEY"}),
        ({"WANDBOX": "k", "WANDB_API_KEY": ""}, {}),
    ],
)
def test_variables_ask_for_trackers(
    environment: dict[str, str], expected: dict[Tracker, str]
) -> None:
    assert asked(environment) == expected


def test_a_library_that_is_missing_is_one_line_with_the_way_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    absent = MLFLOW._replace(library="no_such_library")
    assert lacking(absent, "MLFLOW_TRACKING_URI") == (
        "MLFLOW_TRACKING_URI is set, but no_such_library is not installed, so nothing is sent to "
        "MLflow: make env TRACK=1, or unset MLFLOW_TRACKING_URI"
    )
    monkeypatch.setattr(trackers, "IN_CHECKOUT", False)
    assert ": pip install 'tlcluster[mlflow]', or " in str(lacking(absent, "MLFLOW_TRACKING_URI"))
    assert lacking(MLFLOW._replace(library="json"), "MLFLOW_TRACKING_URI") is None
    # The folder that Weights & Biases leaves in the working directory is no library.
    (tmp_path / "folder_of_results").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert lacking(WANDB._replace(library="folder_of_results"), "WANDB_MODE") is not None
