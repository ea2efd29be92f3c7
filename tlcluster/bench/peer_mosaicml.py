"""MosaicML Streaming, as its users write it: a program for the peers' environment."""

import argparse
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import streaming
import torch
from PIL import Image

from tlcluster.bench.clock import answer, time_epochs
from tlcluster.bench.pngs import png_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["make", "read"])
    parser.add_argument("place", help="folder of the shards, or s3://BUCKET/PREFIX")
    parser.add_argument("--form", choices=["png", "raw"], required=True)
    parser.add_argument("--source", type=Path, help="make: folder of PNG files")
    parser.add_argument("--epochs", type=int, help="read: how many")
    parser.add_argument("--cache", help="read: folder for what comes from S3")
    given = parser.parse_args()
    if given.work == "make":
        make(given.source, Path(given.place), given.form)
        answer(made=given.place)
        return
    # A killed reader leaves its shared memory behind, and the next one fails because of it.
    streaming.base.util.clean_stale_shared_memory()
    torch.set_num_threads(1)
    where = (
        {"remote": given.place, "local": given.cache}
        if "://" in given.place
        else {"local": given.place}
    )
    dataset = streaming.StreamingDataset(**where, shuffle=True, batch_size=128)

    def collate(samples: list[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        images = torch.from_numpy(np.stack([np.asarray(sample["image"]) for sample in samples]))
        return images, torch.tensor([sample["label"] for sample in samples])

    loader = streaming.StreamingDataLoader(dataset, batch_size=128, collate_fn=collate)

    time_epochs(lambda: loader, given.epochs)


def make(source: Path, folder: Path, form: str) -> None:
    columns = {"image": "png" if form == "png" else "ndarray:uint8:32,32,3", "label": "int"}
    with streaming.MDSWriter(out=str(folder), columns=columns) as writer:
        for data, label in png_files(source):
            image = Image.open(io.BytesIO(data))
            writer.write({"image": image if form == "png" else np.array(image), "label": label})


if __name__ == "__main__":
    main()
