"""Make the 8-bit copy of VGG16's weights that the package ships, from the published file.

    python -m tlcluster.training.make_shipped_weights PUBLISHED.h5 COPY.npz.xz

The copy belongs in `tlcluster/training/weights_files`; its sha256, which is printed, in
`shipped_weights.SHA256`.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

from tlcluster import cli
from tlcluster.backbones import BACKBONES
from tlcluster.errors import UserError, from_os_error
from tlcluster.training.shipped_weights import BASE, packed, read_hdf5
from tlcluster.training.weights import Given, published, read_named


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 2:
        raise UserError("give two arguments: the published file, and where to write the copy")
    source, target = arguments
    content = read_named(Given("file", source))
    published(BACKBONES[BASE], source, content)
    copy = packed(read_hdf5(content))
    try:
        Path(target).write_bytes(copy)
    except OSError as error:
        raise from_os_error(error, target, "name another file") from None
    print(f"{target}: {len(copy):,} bytes, sha256 {hashlib.sha256(copy).hexdigest()}")
    return cli.OK


if __name__ == "__main__":
    cli.command(main)
