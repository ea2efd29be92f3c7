"""An OSError becomes one line, of the kind that says whether to try again."""

import errno
import os
import pickle
from pathlib import Path

import pytest

from tlcluster.errors import (
    AWAY,
    FULL,
    StoreUnavailable,
    UserError,
    from_os_error,
    os_errors_explained,
)


@pytest.mark.parametrize("number", sorted(errno.errorcode))
def test_every_number_is_one_line_of_one_kind(number: int) -> None:
    error = from_os_error(OSError(number, os.strerror(number), "/x"), "/x", "name another place")
    assert "\n" not in str(error)
    assert str(error).startswith("/x: ")
    kind = StoreUnavailable if number in AWAY else UserError
    assert type(error) is kind
    assert ("the disk is full" in str(error)) == (number in FULL)


def test_a_file_system_that_is_away_is_a_matter_of_time() -> None:
    for number in (errno.ESTALE, errno.EIO, errno.ETIMEDOUT, errno.EHOSTDOWN):
        error = from_os_error(OSError(number, os.strerror(number)), "/nfs/a", "name another place")
        assert type(error) is StoreUnavailable
        assert "name another place" not in str(error)
    assert str(error) == "/nfs/a: host is down; its file system does not answer now"


def test_the_way_out_of_a_full_disk_may_be_another_one() -> None:
    full = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert str(from_os_error(full, "/x", "a", if_full="b")) == "/x: the disk is full; b"
    assert str(from_os_error(full, "/x", "a")) == "/x: the disk is full; a"


def test_an_error_without_a_number_still_says_something() -> None:
    assert str(from_os_error(OSError("Odd"), "/x", "a")) == "/x: odd; a"
    assert str(from_os_error(OSError(), "/x", "a")) == "/x: OSError; a"


def test_a_block_explains_the_errors_inside_and_no_others(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match="no such file or directory; look again"),
        os_errors_explained(tmp_path, "look again"),
    ):
        (tmp_path / "none").read_bytes()
    with pytest.raises(ValueError, match="odd"), os_errors_explained(tmp_path, "look again"):
        raise ValueError("odd")


def test_errors_survive_the_way_between_processes() -> None:
    for error in (UserError("a"), StoreUnavailable("b")):
        copy = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert (type(copy), str(copy)) == (type(error), str(error))
