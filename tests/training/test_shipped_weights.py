"""The 8-bit copy of VGG16's weights: what it holds, how close it is, and that it can be remade."""

import hashlib
import importlib.resources
import io
import lzma
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tlcluster.errors import UserError
from tlcluster.training import shipped_weights as module
from tlcluster.training.make_shipped_weights import main
from tlcluster.training.shipped_weights import (
    FILE,
    LEVELS,
    SHA256,
    Convolution,
    hdf5,
    packed,
    read_hdf5,
    shipped_weights,
    unpacked,
)

FOLDER = importlib.resources.files("tlcluster.training") / "weights_files"

kernels = arrays(
    np.float32, (3, 3, 2, 4), elements=st.floats(-10, 10, width=32, allow_subnormal=False)
)


@given(kernels)
def test_no_number_is_off_by_more_than_half_a_step_of_its_channel(kernel: np.ndarray) -> None:
    bias = kernel[0, 0, 0]
    layer = unpacked(packed({"one": Convolution(kernel, bias)}))["one"]
    step = np.abs(kernel).max((0, 1, 2)) / LEVELS
    assert layer.kernel.dtype == np.float32
    assert np.all(np.abs(layer.kernel - kernel) <= step * 0.5001 + 1e-30)
    np.testing.assert_array_equal(layer.bias, bias)


def test_a_channel_of_zeros_stays_zero() -> None:
    zeros = Convolution(np.zeros((3, 3, 1, 1), np.float32), np.zeros(1, np.float32))
    assert not unpacked(packed({"one": zeros}))["one"].kernel.any()


def test_the_layers_are_those_of_vgg16_in_their_order() -> None:
    layers = read_hdf5(shipped_weights())
    assert list(layers) == [
        f"block{block}_conv{number}"
        for block, count in enumerate((2, 2, 3, 3, 3), start=1)
        for number in range(1, count + 1)
    ]
    assert sum(one.kernel.size + one.bias.size for one in layers.values()) == 14_714_688
    assert all(np.isfinite(one.kernel).all() for one in layers.values())


def test_the_container_is_read_without_pickle() -> None:
    content = lzma.decompress((FOLDER / FILE).read_bytes())
    with np.load(io.BytesIO(content), allow_pickle=False) as members:
        kinds = {(name.rpartition(".")[2], members[name].dtype.str) for name in members}
    assert kinds == {("kernel", "|i1"), ("scale", "<f4"), ("bias", "<f4")}


def test_a_file_in_keras_layout_comes_back_as_it_was() -> None:
    rng = np.random.default_rng(0)
    layers = {
        name: Convolution(rng.random((3, 3, 2, 4), np.float32), rng.random(4, np.float32))
        for name in ("second", "first")
    }
    back = read_hdf5(hdf5(layers))
    assert list(back) == list(layers)
    for name, layer in layers.items():
        np.testing.assert_array_equal(back[name].kernel, layer.kernel)
        np.testing.assert_array_equal(back[name].bias, layer.bias)


def test_a_damaged_copy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHA256", "0" * 64)
    with pytest.raises(UserError, match=rf"sha256 is {SHA256}, expected 0+; install tlcluster"):
        shipped_weights()


def test_the_same_weights_give_the_same_bytes() -> None:
    layers = {"one": Convolution(np.ones((3, 3, 1, 2), np.float32), np.ones(2, np.float32))}
    assert packed(layers) == packed(layers)


def test_the_copy_is_what_the_script_makes_of_the_published_file(
    published_weights: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = tmp_path / "published.h5", tmp_path / "copy"
    source.write_bytes(published_weights)
    assert main([str(source), str(target)]) == 0
    # Another version of liblzma may pack the same numbers into other bytes.
    shipped = (FOLDER / FILE).read_bytes()
    assert lzma.decompress(target.read_bytes()) == lzma.decompress(shipped)
    made = hashlib.sha256(target.read_bytes()).hexdigest()
    assert capsys.readouterr().out.endswith(f"sha256 {made}\n")


def test_the_copy_is_close_to_the_published_weights(published_weights: bytes) -> None:
    published, copy = read_hdf5(published_weights), read_hdf5(shipped_weights())
    for name, layer in published.items():
        difference = np.linalg.norm(copy[name].kernel - layer.kernel)
        assert difference < 0.02 * np.linalg.norm(layer.kernel), name
        np.testing.assert_array_equal(copy[name].bias, layer.bias)


@pytest.mark.parametrize("arguments", [[], ["one"], ["one", "two", "three"]])
def test_the_script_asks_for_two_arguments(arguments: list[str]) -> None:
    with pytest.raises(UserError, match="give two arguments"):
        main(arguments)


def test_the_script_takes_only_the_published_file(tmp_path: Path) -> None:
    source = tmp_path / "other.h5"
    source.write_bytes(hdf5({}))
    with pytest.raises(UserError, match="md5 is "):
        main([str(source), str(tmp_path / "copy")])
    assert not (tmp_path / "copy").exists()


def test_the_licence_lies_beside_the_copy() -> None:
    text = (FOLDER / "README.md").read_text()
    for fact in ("CC BY 4.0", "Simonyan", "Zisserman", "Visual Geometry Group", "Keras", "8 bits"):
        assert fact in text


def test_keras_finds_every_layer_in_the_file() -> None:
    with h5py.File(io.BytesIO(shipped_weights())) as file:
        assert [str(name) for name in file.attrs["layer_names"]] == list(file)
