"""LitData, as its users write it: a program for the peers' environment."""

import argparse
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import litdata
import numpy as np
import torch
from litdata.streaming import downloader
from PIL import Image

from tlcluster.bench.clock import answer, time_epochs
from tlcluster.bench.pngs import png_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["make", "read"])
    parser.add_argument("place", help="folder of the chunks, or s3://BUCKET/PREFIX")
    parser.add_argument("--form", choices=["png", "raw"], required=True)
    parser.add_argument("--source", type=Path, help="make: folder of PNG files")
    parser.add_argument("--epochs", type=int, help="read: how many")
    parser.add_argument("--cache", help="read: folder for what comes from S3")
    given = parser.parse_args()
    if given.work == "make":
        make(given.source, given.place, given.form)
        answer(made=given.place)
        return
    torch.set_num_threads(1)
    options = {}
    if "://" in given.place:
        # The server is on loopback without TLS; LitData has no option for that.
        downloader._OBSTORE_CLIENT_OPTIONS["allow_http"] = "true"
        options = {
            "cache_dir": given.cache,
            "storage_options": {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]},
        }
    dataset = litdata.StreamingDataset(given.place, shuffle=True, **options)

    def collate(samples: list[Mapping[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        images = [
            np.array(Image.open(io.BytesIO(sample["image"])))
            if given.form == "png"
            else sample["image"]
            for sample in samples
        ]
        return torch.from_numpy(np.stack(images)), torch.tensor([s["label"] for s in samples])

    loader = litdata.StreamingDataLoader(dataset, batch_size=128, num_workers=0, collate_fn=collate)

    time_epochs(lambda: loader, given.epochs)


def make(source: Path, folder: str, form: str) -> None:
    litdata.optimize(
        fn=png_sample if form == "png" else raw_sample,
        inputs=list(png_files(source)),
        output_dir=folder,
        chunk_bytes="64MB",
        num_workers=1,
    )


# At the top level, because LitData passes them to other processes.


def png_sample(item: tuple[bytes, int]) -> dict[str, object]:
    data, label = item
    return {"image": data, "label": label}


def raw_sample(item: tuple[bytes, int]) -> dict[str, object]:
    data, label = item
    return {"image": np.array(Image.open(io.BytesIO(data))), "label": label}


if __name__ == "__main__":
    main()
