"""An address → the store there."""

import importlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tlcluster.errors import StoreUnavailable, UserError
from tlcluster.storage.cache import NodeCache
from tlcluster.storage.protocol import Store

SCHEMES: Mapping[str, str] = MappingProxyType(
    {
        "": "tlcluster.storage.directory",
        "file": "tlcluster.storage.directory",
        "s3": "tlcluster.storage.s3",
    }
)
"""Scheme of an address → the module that opens it with its function `open_address`. A module is
imported when an address needs it: boto3 takes a third of a second."""

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def open_store(
    url: str, cache: NodeCache | None = None, create: bool = False, check: bool = True
) -> Store:
    """The store at `s3://BUCKET/PREFIX`, in a directory, or at `file:///DIRECTORY`.

    Args:
        url: the address.
        cache: where fetched objects are kept; by default `NodeCache()`. A
            directory needs none, its files are verified in place.
        create: make the directory if there is none, and check that it can be written.
        check: make one cheap request to find out whether the store answers. A
            caller that can wait opens without it, uses the store through
            `tlcluster.storage.patient`, and survives a start during an outage.

    Raises:
        UserError: the store cannot be used. With `check` that includes one
            that does not answer, since its address is most likely wrong.
    """
    try:
        opened: Store = _module(url).open_address(
            url, cache or NodeCache(), create=create, check=check
        )
        return opened
    except StoreUnavailable as error:
        raise UserError(str(error)) from None


def _module(url: str) -> Any:
    found = _SCHEME.match(url)
    if found is None and re.match(r"(s3|https?|file):", url):
        raise UserError(f"{url}: the scheme ends in two slashes, as in s3://BUCKET/PREFIX")
    scheme = found[1] if found else ""
    if scheme not in SCHEMES:
        raise UserError(
            f"{scheme}://…: no such kind of store; give s3://BUCKET/PREFIX or a directory"
        )
    return importlib.import_module(SCHEMES[scheme])
