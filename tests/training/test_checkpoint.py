"""Checkpoints: bit for bit what was saved, the newest that can be read, and never pickle."""

import hashlib
import io
import math
import pickle
import weakref
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tlcluster.errors import StoreUnavailable
from tlcluster.records import EpochRecord
from tlcluster.storage.open import open_store
from tlcluster.storage.protocol import Store, StoredObject
from tlcluster.training import saves
from tlcluster.training.checkpoint import (
    KEPT,
    Checkpoint,
    Loaded,
    delete_checkpoints,
    save_checkpoint,
)
from tlcluster.training.checkpoint import load_checkpoint as load_with_key
from tlcluster.training.saves import agreed
from tlcluster.training.schedule import Schedule
from tlcluster.training.state import TrainingState, is_possible

FOLDER = "frozen/checkpoints/"


def load_checkpoint(run: Store, experiment: str) -> Checkpoint | None:
    loaded = load_with_key(run, experiment)
    return loaded.checkpoint if loaded else None


@pytest.fixture
def run(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "run"), create=True)


def epoch_record(epoch: int, val_accuracy: float = 0.5) -> EpochRecord:
    return EpochRecord(
        epoch=epoch,
        loss=2.3 / epoch,
        accuracy=0.1,
        val_loss=0.1 + 0.2,
        val_accuracy=val_accuracy,
        seconds=1.5,
        images_per_second=1e3,
        learning_rate=1e-3,
        workers=2,
    )


def made(epoch: int, step: int = 0, seed: int = 0) -> Checkpoint:
    generator = np.random.default_rng([epoch, step, seed])
    weights = [generator.normal(size=shape).astype(np.float32) for shape in [(7, 5), (5,), (5, 2)]]
    return Checkpoint(
        TrainingState(epoch=epoch, step=step, history=(epoch_record(1), epoch_record(2))),
        weights=weights,
        optimizer=[np.array(epoch * 10, np.int64), *[-weight for weight in weights]],
        best=[weight + 1 for weight in weights],
    )


def assert_same(loaded: Checkpoint | None, saved: Checkpoint) -> None:
    assert loaded is not None
    assert loaded.state == saved.state
    for ours, theirs in zip(loaded[1:], saved[1:], strict=True):
        assert [(a.dtype, a.shape, a.tobytes()) for a in ours] == [
            (b.dtype, b.shape, b.tobytes()) for b in theirs
        ]


def keys(run: Store) -> list[str]:
    return [found.key for found in run.list(FOLDER)]


@st.composite
def arrays_of_any_bits(draw: st.DrawFn) -> list[np.ndarray]:
    """Float and integer arrays of few and of no dimensions, NaNs and negative zeros included."""
    generator = np.random.default_rng(draw(st.integers(0, 999)))
    kinds = st.tuples(
        st.sampled_from([np.float32, np.int64, np.float16]),
        st.lists(st.integers(0, 5), max_size=3),
    )
    return [
        np.frombuffer(generator.bytes(math.prod(shape) * 8), dtype)[: math.prod(shape)].reshape(
            shape
        )
        for dtype, shape in draw(st.lists(kinds, max_size=12))
    ]


groups = arrays_of_any_bits()
numbers = st.floats(allow_nan=False)


@settings(max_examples=40, deadline=None)
@given(weights=groups, optimizer=groups, best=groups, loss=numbers, seconds=numbers)
def test_a_checkpoint_comes_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory,
    weights: list[np.ndarray],
    optimizer: list[np.ndarray],
    best: list[np.ndarray],
    loss: float,
    seconds: float,
) -> None:
    run = open_store(str(tmp_path_factory.mktemp("run")))
    state = TrainingState(
        epoch=3,
        step=17,
        loss_sum=loss,
        correct=5,
        rows=9,
        train_seconds=seconds,
        history=(epoch_record(1, 0.1 + 0.2), epoch_record(2)),
        best_epoch=1,
        best_accuracy=0.1 + 0.2,
        wall_seconds=1 / 3,
    )
    saved = Checkpoint(state, weights, optimizer, best)
    save_checkpoint(run, "frozen", saved)
    assert_same(load_checkpoint(run, "frozen"), saved)


def test_a_variable_is_in_memory_twice_only_while_it_is_written(run: Store) -> None:
    copies: list[weakref.ref[np.ndarray]] = []
    most = []

    class Variable:
        def __init__(self, value: np.ndarray) -> None:
            self.value = value

        def __array__(self, *_: object, **__: object) -> np.ndarray:
            copy = self.value.copy()
            copies.append(weakref.ref(copy))
            most.append(sum(found() is not None for found in copies))
            return copy

    saved = made(3)
    save_checkpoint(run, "frozen", saved._replace(weights=[*map(Variable, saved.weights)]))  # type: ignore[list-item]
    assert_same(load_checkpoint(run, "frozen"), saved)
    assert len(most) == len(saved.weights)
    assert max(most) <= 2  # the next one is read before the last is let go


def test_the_losses_of_a_diverged_epoch_come_back(run: Store) -> None:
    record = epoch_record(1).model_copy(update={"loss": float("nan"), "val_loss": float("inf")})
    state = TrainingState(epoch=2, loss_sum=float("-inf"), history=(record,))
    save_checkpoint(run, "frozen", Checkpoint(state, [], [], []))
    loaded = load_checkpoint(run, "frozen")
    assert loaded is not None
    assert np.isnan(loaded.state.history[0].loss)
    assert loaded.state.history[0].val_loss == float("inf")
    assert loaded.state.loss_sum == float("-inf")


def test_only_the_newest_are_kept(run: Store) -> None:
    for epoch, step in [(1, 8), (1, 96), (1, 104), (2, 0), (10, 8)]:
        save_checkpoint(run, "frozen", made(epoch, step))
        save_checkpoint(run, "augmented", made(epoch, step))
    assert [key[: len(FOLDER) + 13] for key in keys(run)] == [
        f"{FOLDER}0002-00000000",
        f"{FOLDER}0010-00000008",
    ]
    assert len(keys(run)) == KEPT
    assert_same(load_checkpoint(run, "frozen"), made(10, 8))


def test_a_truncated_newest_one_falls_back_to_the_one_before(run: Store) -> None:
    save_checkpoint(run, "frozen", made(2))
    save_checkpoint(run, "frozen", made(3))
    newest = keys(run)[-1]
    whole = run.get(newest)
    for length in (0, 1, 30, len(whole) // 2, len(whole) - 1):
        run.put(newest, whole[:length])
        assert_same(load_checkpoint(run, "frozen"), made(2))


def test_a_flipped_bit_anywhere_is_noticed(run: Store) -> None:
    save_checkpoint(run, "frozen", made(2))
    save_checkpoint(run, "frozen", made(3)._replace(optimizer=[], best=[]))
    newest = keys(run)[-1]
    whole = run.get(newest)
    # The ends hold what is worst: the headers of the first array and the directory of all.
    for position in [*range(0, 300, 3), *range(300, len(whole) - 300, 50), *range(-300, 0)]:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        run.put(newest, bytes(damaged))
        assert_same(load_checkpoint(run, "frozen"), made(2))


def test_what_cannot_be_read_is_not_kept_instead_of_what_can(run: Store) -> None:
    for key in ("0005-00000000", "0005-00000008"):
        run.put(f"{FOLDER}{key}-{'0' * 64}.npz", b"damaged")
    assert load_checkpoint(run, "frozen") is None
    save_checkpoint(run, "frozen", made(1, 8))
    save_checkpoint(run, "frozen", made(1, 16))
    assert_same(load_checkpoint(run, "frozen"), made(1, 16))
    assert len(keys(run)) == KEPT


def test_without_a_readable_one_there_is_none(run: Store) -> None:
    assert load_checkpoint(run, "frozen") is None
    run.put(f"{FOLDER}0001-00000008.npz", b"")
    run.put(f"{FOLDER}0002-00000000-{'0' * 64}.npz", b"PK\x03\x04 no zip")
    assert load_checkpoint(run, "frozen") is None


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(run: Store, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    buffer = io.BytesIO()
    state = np.frombuffer(TrainingState().model_dump_json().encode(), np.uint8)
    trap = {"state": state, "weights/0000": np.array(Trap(sprung), dtype=object)}
    np.savez(buffer, **trap)  # type: ignore[arg-type]
    for hostile in (buffer.getvalue(), pickle.dumps(Trap(sprung))):
        sha256 = hashlib.sha256(hostile).hexdigest()
        run.put(f"{FOLDER}0001-00000008-{sha256}.npz", hostile)
        assert load_checkpoint(run, "frozen") is None
        delete_checkpoints(run, "frozen")
    assert not sprung.exists()


def hashed(run: Store, content: bytes, name: str = "0009-00000000") -> None:
    """Anyone who can write to the run's folder can name an object by its hash."""
    run.put(f"{FOLDER}{name}-{hashlib.sha256(content).hexdigest()}.npz", content)


@pytest.mark.parametrize("kind", ["no zip", "no state", "no JSON", "no array", "claims a terabyte"])
def test_what_is_no_checkpoint_is_passed_over_though_its_hash_is_right(
    run: Store, kind: str
) -> None:
    save_checkpoint(run, "frozen", made(2))
    state = np.frombuffer(TrainingState().model_dump_json().encode(), np.uint8)
    buffer = io.BytesIO()
    if kind == "no state":
        np.savez(buffer, **{"weights/0000": state})
    elif kind == "no JSON":
        np.savez(buffer, state=state[:-1])
    elif kind in ("no array", "claims a terabyte"):
        header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,), }"
        array = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117) + b"\n"
        np.savez(buffer, state=state)
        with zipfile.ZipFile(buffer, "a") as archive:
            archive.writestr("weights/0000.npy", array if kind != "no array" else b"junk")
    hashed(run, buffer.getvalue() or b"junk" * 99)
    assert_same(load_checkpoint(run, "frozen"), made(2))


def test_a_checkpoint_that_does_not_fit_is_passed_over(run: Store) -> None:
    for epoch in (2, 3):
        save_checkpoint(run, "frozen", made(epoch))
    loaded = load_with_key(run, "frozen", lambda checkpoint: checkpoint.state.epoch < 3)
    assert loaded is not None
    assert_same(loaded.checkpoint, made(2))
    assert load_with_key(run, "frozen", lambda _: False) is None


def test_an_object_that_goes_away_while_checkpoints_are_listed_is_passed_over(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(run, "frozen", made(2))
    gone = StoredObject(f"{FOLDER}0009-00000000-{'0' * 64}.npz", 1)
    real = run.list
    monkeypatch.setattr(run, "list", lambda prefix: [*real(prefix), gone])
    assert_same(load_checkpoint(run, "frozen"), made(2))


def test_workers_go_on_when_all_of_them_see_the_same_checkpoint(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client of a network file system may show an old listing for a while."""
    monkeypatch.setattr(saves, "LOOK_SECONDS", 0.0)
    save_checkpoint(run, "frozen", made(2))
    old = load_with_key(run, "frozen")
    save_checkpoint(run, "frozen", made(3))
    looks = iter([None, old, old])

    def load() -> Loaded | None:
        return next(looks, load_with_key(run, "frozen"))

    newest = load_with_key(run, "frozen")
    assert newest is not None
    said: list[str] = []

    def everyones(line: str) -> list[str]:
        said.append(line)
        return [newest.key, line]

    agreement = agreed(load, everyones)
    assert agreement is not None
    assert agreement.key == newest.key
    assert said[0] == "none"
    assert len(said) == 4
    with pytest.raises(StoreUnavailable, match="do not see the same checkpoints"):
        agreed(load, lambda line: [line, "other"])


SCHEDULE = Schedule(
    rank=0, workers=1, seed=1, global_batch=10, learning_rate=0.1, steps=20, epochs=9, patience=3
)


def reached(**changes: object) -> TrainingState:
    state = TrainingState(
        epoch=3,
        step=7,
        loss_sum=1.0,
        correct=3,
        rows=70,
        train_seconds=2.0,
        history=(epoch_record(1), epoch_record(2)),
        best_epoch=1,
        best_accuracy=0.5,
        wall_seconds=9.0,
    )
    return state.model_copy(update=changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": 10**9}, {"epoch": 0}, {"epoch": -1}, {"step": 21}, {"step": -1}, {"rows": 0},
        {"correct": 71}, {"train_seconds": 0.0}, {"train_seconds": math.nan},
        {"wall_seconds": math.inf}, {"history": ()}, {"best_epoch": None}, {"best_epoch": 3},
        {"history": (epoch_record(2), epoch_record(1))},
        {"history": (epoch_record(1).model_copy(update={"images_per_second": 0.0}),
                     epoch_record(2))},
    ],
)  # fmt: skip
def test_a_state_that_no_training_reaches_is_not_possible(changes: dict[str, object]) -> None:
    assert is_possible(TrainingState(), SCHEDULE)
    assert is_possible(reached(), SCHEDULE)
    assert is_possible(reached(step=0, rows=0, correct=0, train_seconds=0.0), SCHEDULE)
    assert not is_possible(reached(**changes), SCHEDULE)


def test_a_checkpoint_that_was_not_written_whole_is_not_there(
    run: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(run, "frozen", made(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(run, "frozen", made(2))
    assert_same(load_checkpoint(run, "frozen"), made(1))


def test_a_finished_experiment_leaves_none_and_touches_no_other(run: Store) -> None:
    save_checkpoint(run, "frozen", made(1))
    save_checkpoint(run, "augmented", made(1))
    delete_checkpoints(run, "frozen")
    assert keys(run) == []
    assert_same(load_checkpoint(run, "augmented"), made(1))


def test_files_of_others_beside_the_checkpoints_stay(run: Store) -> None:
    run.put(FOLDER + "notes.txt", b"mine")
    run.put(FOLDER + "0001-best.npz", b"mine")
    for epoch in (1, 2, 3, 4):
        save_checkpoint(run, "frozen", made(epoch))
    assert_same(load_checkpoint(run, "frozen"), made(4))
    delete_checkpoints(run, "frozen")
    assert keys(run) == [FOLDER + "0001-best.npz", FOLDER + "notes.txt"]


def test_patience_counts_the_epochs_since_the_best_one() -> None:
    history = tuple(epoch_record(epoch) for epoch in range(1, 6))
    assert TrainingState().waited == 0
    assert TrainingState(history=history, best_epoch=3).waited == 2
    assert TrainingState(history=history, best_epoch=5).waited == 0
