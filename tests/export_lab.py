"""A finished run to export, made by hand with random weights.

Its experiment has every field that changes the model. Its data set are generated photographs of
seven classes with names in several scripts.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import fake_run
import numpy as np
import numpy.typing as npt
import photos
import tf_keras as keras

from tlcluster.dataset.ingest import ingest
from tlcluster.dataset.labels import sources_and_labels
from tlcluster.dataset.shards import read_index
from tlcluster.experiments import EXPERIMENTS, Experiment
from tlcluster.export import score
from tlcluster.records import (
    CONFIG,
    MANIFEST,
    PREDICTIONS,
    WEIGHTS,
    DatasetRecord,
    ExperimentConfig,
)
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store
from tlcluster.training.evaluate import softmax
from tlcluster.training.model import (
    Models,
    SampleDropout,
    build_models,
    layer_records,
    no_keys,
    parameter_counts,
    weights_file,
)

EXPERIMENT = Experiment(
    **{
        **EXPERIMENTS["regularized"].model_dump(),
        "name": "odd",
        "taps": "block1,block2",
        "input_size": 40,
        "preprocess": "base",
        "dense_units": 24,
        "test_views": 2,
    }
)

SIZE = (36, 32)
"""Width and height of the data set's images: other than square, so that no axis can be taken for
another."""


class Made(NamedTuple):
    """A run, and where the photographs of its data set are."""

    run: Path
    photos: Path

    def arguments(self, to: Path) -> list[str]:
        """Of `export`, but for the format."""
        return ["--run", str(self.run), "--experiment", "odd", "--to", str(to)]


@contextlib.contextmanager
def run_to_export(folder: Path) -> Iterator[Made]:
    """Make photographs, a data set of them, and a run with a finished and a failed experiment.

    At the end of the block, models and variables that the commands set are forgotten.
    """
    pictures = photos.make_photos(folder / "photos", counts={"train": 8, "test": 3})
    images = open_store(str(folder / "store"), create=True)
    ingest(str(pictures), images, image_size=SIZE, valid_fraction=0.2, processes=1)
    run = open_store(str(folder / "run"), create=True)
    _write_run(run, images)
    with mock.patch.dict(os.environ):
        yield Made(folder / "run", pictures)
    keras.backend.clear_session()


def _write_run(run: Store, images: Store) -> None:
    index, sha256 = read_index(images)
    dataset = DatasetRecord(
        name=index.dataset,
        index_sha256=sha256,
        classes=index.classes,
        splits={split: index.rows(split) for split in index.splits},
        store=images.url,
    )
    models = build_models(
        EXPERIMENT,
        image_shape=index.image_shape,
        classes=len(index.classes),
        seed=1,
        imagenet_weights=None,
    )
    trained, total = parameter_counts(models.whole)
    config = ExperimentConfig(
        experiment=EXPERIMENT,
        seed=524,
        layers=layer_records(models.whole),
        trainable_params=trained,
        total_params=total,
    )
    run.put(f"odd/{CONFIG}", config.model_dump_json().encode())
    pixels = score.first_images(images, index, "test", 1000).astype(np.float32)
    _far_from_their_start(models, pixels)
    views = [
        softmax(models.whole([view, no_keys(view)], training=False).numpy())
        for view in (pixels, pixels[:, :, ::-1])
    ]
    sources, labels = sources_and_labels(images, index, "test")
    arrays = io.BytesIO()
    np.savez(arrays, source=sources, label=labels, probabilities=np.mean(views, axis=0))
    with weights_file(models.whole) as path:
        content = {WEIGHTS: path.read_bytes(), PREDICTIONS: arrays.getvalue()}
    for name, data in content.items():
        run.put(f"odd/{name}", data)
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in content.items()}
    fake_run.write_result(run, "odd", fake_run.experiment_result("frozen", sha256=digests))
    manifest = fake_run.manifest(experiments=("odd", "frozen"), dataset=dataset)
    run.put(MANIFEST, manifest.model_dump_json().encode())
    failed = fake_run.experiment_result("frozen", status="failed", error="out of memory")
    fake_run.write_result(run, "frozen", failed)


def _far_from_their_start(models: Models, pixels: npt.NDArray[np.float32]) -> None:
    """Weights that no layer has by default, and answers that differ between images."""
    random = np.random.default_rng(5)
    x = models.base(pixels).numpy()
    for layer in models.head.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            moments = [x.mean(axis=0), x.var(axis=0)]
            layer.set_weights([*random.uniform(0.5, 1.5, (2, x.shape[1])), *moments])
        elif isinstance(layer, keras.layers.Dense):
            kernel, bias = layer.get_weights()
            layer.set_weights([random.normal(0, 0.4, kernel.shape), bias])
        if not isinstance(layer, keras.layers.InputLayer | keras.layers.Reshape | SampleDropout):
            x = layer(x.reshape(-1, *layer.input_shape[1:])).numpy().reshape(len(x), -1)
