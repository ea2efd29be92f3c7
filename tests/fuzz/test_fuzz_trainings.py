"""What trainings leave in an output folder: checkpoints, and features with their claims."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mangle import damaged, json_files, npy_files, npz_files
from promise import fuzzed, kept

from tlcluster.storage.directory import DirectoryStore
from tlcluster.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tlcluster.training.features import Claim, FeatureObject, checked
from tlcluster.training.state import TrainingState

STATE = TrainingState(epoch=1, step=3, loss_sum=1.5, correct=5, rows=9, train_seconds=0.5)
WEIGHTS = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)


@st.composite
def checkpoints(draw: st.DrawFn) -> bytes:
    state = draw(st.one_of(st.just(b""), json_files(STATE.model_dump_json().encode())))
    text = state or STATE.model_dump_json().encode()
    arrays = {
        "state": np.frombuffer(text, np.uint8),
        "weights/0000": WEIGHTS,
        "optimizer/0000": np.array(7),
        "best/0000": WEIGHTS,
    }
    return draw(npz_files(arrays))


@fuzzed
@given(content=checkpoints())
def test_a_checkpoint(content: bytes, tmp_path: Path) -> None:
    run = DirectoryStore(tmp_path)
    sha256 = hashlib.sha256(content).hexdigest()
    key = f"frozen/checkpoints/0001-00000003-{sha256}.npz"
    run.put(key, content)
    loaded = kept("checkpoint", lambda: load_checkpoint(run, "frozen"))
    run.delete(key)
    if loaded is not None:
        saved = loaded.checkpoint
        assert all(isinstance(array, np.ndarray) for group in saved[1:] for array in group)
        assert isinstance(saved.state, TrainingState)


def test_what_is_damaged_here_is_a_checkpoint_before(tmp_path: Path) -> None:
    run = DirectoryStore(tmp_path)
    save_checkpoint(run, "frozen", Checkpoint(STATE, [WEIGHTS], [np.array(7)], [WEIGHTS]))
    loaded = load_checkpoint(run, "frozen")
    assert loaded is not None
    assert loaded.checkpoint.state == STATE


@fuzzed
@given(content=npy_files(WEIGHTS))
def test_features(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "features.npy"
    path.write_bytes(content)
    found = kept("features", lambda: checked(path, WEIGHTS.shape))
    if found is not None:
        assert (found.dtype, found.shape) == (WEIGHTS.dtype, WEIGHTS.shape)


@pytest.mark.parametrize("version", [2, 3])
def test_features_may_not_claim_a_header_of_gigabytes(version: int, tmp_path: Path) -> None:
    """Memory for the header was taken before it was read."""
    np.save(tmp_path / "x.npy", WEIGHTS)
    content = bytearray((tmp_path / "x.npy").read_bytes())
    content[6], content[8:12] = version, b"\xff\xff\xff\x7f"
    (tmp_path / "x.npy").write_bytes(content)
    assert kept("features", lambda: checked(tmp_path / "x.npy", WEIGHTS.shape)) is None


CLAIM = Claim(training="a/frozen", attempt=3)


@fuzzed
@given(
    claim=json_files(CLAIM.model_dump_json().encode()),
    small=json_files(FeatureObject(sha256="0" * 64, bytes=9).model_dump_json().encode()),
    noise=damaged(b'{"training":"a/frozen","attempt":2}'),
)
def test_a_claim_and_the_small_file_beside_features(
    claim: bytes, small: bytes, noise: bytes
) -> None:
    kept("claim", lambda: (CLAIM.left_by(claim), CLAIM.left_by(noise)))

    def known() -> FeatureObject | None:
        with contextlib.suppress(ValueError):  # as `FeatureStore` does
            return FeatureObject.model_validate_json(small)
        return None

    kept("small file", known)
