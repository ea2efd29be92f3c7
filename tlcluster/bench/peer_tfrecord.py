"""TFRecord through tf.data, as its users write it: a program for the benchmark."""

import argparse
import io
import itertools
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from tlcluster.bench.clock import answer, time_epochs
from tlcluster.bench.pngs import png_files

RECORDS = 2048
"""Images per file, as many as in our shards."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["make", "read"])
    parser.add_argument("folder", type=Path, help="of the records")
    parser.add_argument("--form", choices=["png", "raw"], required=True)
    parser.add_argument("--source", type=Path, help="make: folder of PNG files")
    parser.add_argument("--epochs", type=int, help="read: how many")
    given = parser.parse_args()
    if given.work == "make":
        make(given.source, given.folder, given.form)
        answer(made=str(given.folder))
        return
    files = sorted(map(str, given.folder.glob("*.tfrecord")))
    epoch = png_epoch if given.form == "png" else raw_epoch
    time_epochs(lambda: epoch(files), given.epochs)


def make(source: Path, folder: Path, form: str) -> None:
    folder.mkdir(parents=True)
    files = png_files(source)
    for number in itertools.count():
        some = list(itertools.islice(files, RECORDS))
        if not some:
            return
        with tf.io.TFRecordWriter(str(folder / f"{number:05d}.tfrecord")) as writer:
            for data, label in some:
                image = data if form == "png" else np.array(Image.open(io.BytesIO(data))).tobytes()
                writer.write(record(image, label))


def record(image: bytes, label: int) -> bytes:
    features = {
        "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
        "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
    }
    example = tf.train.Example(features=tf.train.Features(feature=features))
    return example.SerializeToString()


FEATURES = {
    "image": tf.io.FixedLenFeature((), tf.string),
    "label": tf.io.FixedLenFeature((), tf.int64),
}


def shuffled_records(files: list[str]) -> tf.data.Dataset:
    return (
        tf.data.Dataset.from_tensor_slices(files)
        .shuffle(len(files))
        .interleave(tf.data.TFRecordDataset, cycle_length=8, num_parallel_calls=tf.data.AUTOTUNE)
        .shuffle(8192)
    )


def png_epoch(files: list[str]) -> tf.data.Dataset:
    """The way of TensorFlow's guide: parse and decode each record, then batch."""

    def decoded(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_single_example(record, FEATURES)
        image = tf.io.decode_png(parsed["image"], channels=3)
        return tf.ensure_shape(image, (32, 32, 3)), parsed["label"]

    return (
        shuffled_records(files)
        .map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
        .batch(128)
        .prefetch(tf.data.AUTOTUNE)
    )


def raw_epoch(files: list[str]) -> tf.data.Dataset:
    """The fastest way that we know: parse and decode a whole batch in one call."""

    def decoded(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(records, FEATURES)
        images = tf.io.decode_raw(parsed["image"], tf.uint8, fixed_length=32 * 32 * 3)
        return tf.reshape(images, (-1, 32, 32, 3)), parsed["label"]

    return (
        shuffled_records(files)
        .batch(128)
        .map(decoded, num_parallel_calls=tf.data.AUTOTUNE)
        .prefetch(tf.data.AUTOTUNE)
    )


if __name__ == "__main__":
    main()
