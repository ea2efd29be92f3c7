"""The head of `frozen` in plain Keras, on features made once: what accuracy the study's recipe has.

A program for the benchmark. The plain program itself would take hours for its
55 epochs; the base is frozen, so training the head on its features is the same.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tlcluster.bench.clock import answer
from tlcluster.bench.peer_keras import BATCH, SIDE

SPLITS = ("train", "valid", "test")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="CINIC-10: <split>/<class>/<name>.png")
    parser.add_argument("--weights", help="VGG16's ImageNet weights; left out, random ones")
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", required=True)
    given = parser.parse_args()
    base = tf.keras.applications.VGG16(
        include_top=False, weights=given.weights, input_shape=(SIDE, SIDE, 3)
    )
    features = {split: features_of(base, given.folder / split) for split in SPLITS}
    answer(accuracy=[accuracy(features, seed, given.epochs) for seed in given.seeds])


def features_of(base: Any, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """float32 (n, 512) features and int labels (n,) of a folder's images."""
    images = tf.keras.utils.image_dataset_from_directory(
        folder, image_size=(SIDE, SIDE), batch_size=BATCH, shuffle=False, verbose=False
    )
    made = [(base.predict_on_batch(x).reshape(-1, 512), y.numpy()) for x, y in images]
    return np.concatenate([x for x, _ in made]), np.concatenate([y for _, y in made])


def accuracy(features: dict[str, tuple[np.ndarray, np.ndarray]], seed: int, epochs: int) -> float:
    """Test accuracy, in percent, of the best epoch, as the study's recipe has it."""
    tf.keras.utils.set_random_seed(seed)
    model = tf.keras.Sequential(
        [
            tf.keras.layers.Dense(512, activation="relu"),
            tf.keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(
        optimizer=tf.keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    best = tf.keras.callbacks.EarlyStopping(
        monitor="val_accuracy", mode="max", patience=epochs, restore_best_weights=True
    )
    model.fit(
        *features["train"],
        validation_data=features["valid"],
        batch_size=BATCH,
        epochs=epochs,
        callbacks=[best],
        verbose=0,
    )
    return 100 * float(model.evaluate(*features["test"], verbose=0)[1])


if __name__ == "__main__":
    main()
