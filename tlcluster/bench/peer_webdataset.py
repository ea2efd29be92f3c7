"""WebDataset, as its users write it: a program for the peers' environment."""

import argparse
from pathlib import Path

import boto3
import webdataset

from tlcluster.bench.clock import answer, time_epochs
from tlcluster.bench.pngs import png_files

RECORDS = 2048
"""Images per tar file, as many as in our shards."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", choices=["make", "read"])
    parser.add_argument("place", help="folder of the tar files, or s3://BUCKET/PREFIX")
    parser.add_argument("--source", type=Path, help="make: folder of PNG files")
    parser.add_argument("--epochs", type=int, help="read: how many")
    given = parser.parse_args()
    if given.work == "make":
        make(given.source, Path(given.place))
        answer(made=given.place)
        return
    urls = signed(given.place) if "://" in given.place else tars(Path(given.place))
    dataset = (
        webdataset.WebDataset(urls, shardshuffle=len(urls))
        .shuffle(8192)
        .decode("rgb8")
        .to_tuple("png", "cls")
        .batched(128)
    )

    time_epochs(lambda: dataset, given.epochs)


def make(source: Path, folder: Path) -> None:
    folder.mkdir(parents=True)
    pattern = str(folder / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=RECORDS, verbose=0) as writer:
        for number, (data, label) in enumerate(png_files(source)):
            writer.write({"__key__": f"{number:08d}", "png": data, "cls": label})


def tars(folder: Path) -> list[str]:
    return sorted(map(str, folder.glob("*.tar")))


def signed(place: str) -> list[str]:
    """Addresses that curl can read, the way WebDataset reads a bucket that is not public."""
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    client = boto3.client("s3")
    keys = [
        item["Key"]
        for item in client.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    ]
    return [
        "pipe:curl --silent --fail '{}'".format(
            client.generate_presigned_url("get_object", {"Bucket": bucket, "Key": key})
        )
        for key in keys
    ]


if __name__ == "__main__":
    main()
