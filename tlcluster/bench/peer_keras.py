"""The study's recipe as a plain Keras program: folders of images, ImageDataGenerator, `fit`.

A program for the benchmark. It runs in the environment of tlcluster, whose
TensorFlow brings the Keras that people use today.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import tensorflow as tf

from tlcluster.bench.clock import answer

BATCH = 128
SIDE = 32
SEED = 524


def main() -> None:
    began = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=["frozen", "augmented", "regularized", "finetuned"])
    parser.add_argument("folder", type=Path, help="CINIC-10: <split>/<class>/<name>.png")
    parser.add_argument("--weights", help="VGG16's ImageNet weights; left out, random ones")
    parser.add_argument("--epochs", type=int, required=True)
    given = parser.parse_args()
    tf.keras.utils.set_random_seed(SEED)
    train = (
        plain(given.folder / "train")
        if given.model == "frozen"
        else augmented(given.folder / "train")
    )
    model = tf.keras.Sequential(layers(given.model, given.weights))
    model.compile(
        optimizer=tf.keras.optimizers.Adam(1e-3),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    clock = Clock()
    model.fit(
        train,
        validation_data=plain(given.folder / "valid"),
        epochs=given.epochs,
        callbacks=[clock],
        verbose=0,
    )
    answer(
        start_seconds=clock.first_step - began,
        train_seconds=clock.train_seconds,
        epoch_seconds=clock.epoch_seconds,
        images=sum(1 for _ in (given.folder / "train").rglob("*.png")),
    )


def plain(folder: Path) -> Any:
    """Images as they are."""
    return tf.keras.utils.image_dataset_from_directory(
        folder,
        label_mode="categorical",
        image_size=(SIDE, SIDE),
        batch_size=BATCH,
        seed=SEED,
        verbose=False,
    )


def augmented(folder: Path) -> Any:
    """Images as the study's generator shows them."""
    return tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=20,
        width_shift_range=0.2,
        height_shift_range=0.2,
        shear_range=0.2,
        zoom_range=0.2,
        horizontal_flip=True,
        fill_mode="nearest",
    ).flow_from_directory(folder, target_size=(SIDE, SIDE), batch_size=BATCH, seed=SEED)


def layers(name: str, weights: str | None) -> list[Any]:
    """The layers of one of the four models."""
    base = tf.keras.applications.VGG16(
        include_top=False, weights=weights, input_shape=(SIDE, SIDE, 3)
    )
    base.trainable = name == "finetuned"
    new = tf.keras.layers
    if name == "regularized":
        head = [
            new.BatchNormalization(),
            new.Flatten(),
            new.Dense(512, activation="relu"),
            new.BatchNormalization(),
            new.Dropout(0.2),
        ]
    else:
        head = [new.Flatten(), new.Dense(512, activation="relu")]
    return [base, *head, new.Dense(10, activation="softmax")]


class Clock(tf.keras.callbacks.Callback):
    """When things happen in `fit`, in seconds; an epoch is training and validation."""

    def __init__(self) -> None:
        super().__init__()
        self.first_step = 0.0
        self.train_seconds: list[float] = []
        self.epoch_seconds: list[float] = []
        self._began = 0.0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        self._began = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002
        self.first_step = self.first_step or time.perf_counter()

    def on_test_begin(self, logs: object = None) -> None:  # noqa: ARG002
        self.train_seconds.append(time.perf_counter() - self._began)

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        self.epoch_seconds.append(time.perf_counter() - self._began)


if __name__ == "__main__":
    main()
