"""Energy: counters that are read, shared, turned over or missing, and the estimate without them."""

from pathlib import Path

import pytest

from tlcluster.machine import WATTS
from tlcluster.training import energy
from tlcluster.training.energy import Meter, Package, node_cpu_seconds, packages
from tlcluster.training.ledger import Ledger
from tlcluster.training.nvml import gpu_counter


class Machine:
    """A node whose counters a test sets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.own, self.node, self.gpu = 5.0, 100.0, 1000.0
        for number in (0, 1):
            package = folder / f"intel-rapl:{number}"
            package.mkdir()
            (package / "max_energy_range_uj").write_text("10000000\n")
            (folder / f"intel-rapl:{number}:0").mkdir()  # a part of the package
            self.count(number, 9_000_000)

    def count(self, number: int, microjoules: int) -> None:
        (self.folder / f"intel-rapl:{number}" / "energy_uj").write_text(f"{microjoules}\n")

    def meter(self, gpus: float, processors: list[Package]) -> Meter:
        return Meter(
            gpus,
            processors=processors,
            own=lambda: self.own,
            node=lambda: self.node,
            gpu=(lambda: self.gpu) if gpus else None,
        )


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_worker_has_its_part_of_what_all_processors_used(machine: Machine) -> None:
    meter = machine.meter(0.0, packages(machine.folder))
    machine.count(0, 9_500_000)
    machine.count(1, 2_500_000)  # it has started again from 0
    machine.own, machine.node = 6.0, 104.0
    assert meter.joules() == pytest.approx((0.5 + 3.5) * 1 / 4)
    assert meter.joules() == pytest.approx(1.0)
    assert (meter.source, meter.known) == ("RAPL", True)


def test_without_counters_cpu_time_is_an_estimate_and_called_one(
    machine: Machine, tmp_path: Path
) -> None:
    meter = machine.meter(0.0, packages(tmp_path / "none"))
    machine.own += 2.0
    assert meter.joules() == 2.0 * WATTS
    assert meter.source == "an estimate"


@pytest.mark.parametrize("file", ["energy_uj", "max_energy_range_uj"])
def test_counters_of_which_one_cannot_be_read_are_not_used(machine: Machine, file: str) -> None:
    (machine.folder / "intel-rapl:1" / file).write_text("no number")
    assert packages(machine.folder) == []


def test_counters_that_vanish_end_nothing(machine: Machine) -> None:
    meter = machine.meter(0.0, packages(machine.folder))
    (machine.folder / "intel-rapl:0" / "energy_uj").unlink()
    machine.own += 1.0
    assert meter.joules() == 0.0


def test_a_part_of_a_gpu_has_this_part_of_its_energy(machine: Machine) -> None:
    meter = machine.meter(0.25, [])
    machine.gpu += 80.0
    machine.own += 1.0
    assert meter.joules() == 20.0 + WATTS
    assert (meter.source, meter.known) == ("NVML and an estimate", True)


def test_a_gpu_without_a_counter_leaves_the_energy_unknown(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(energy, "gpu_counter", lambda _: None)
    meter = Meter(1.0, processors=[], own=lambda: machine.own)
    assert not meter.known
    used = Ledger(None, 1, dict, meter).since()
    assert (used.joules, used.energy_source) == (None, "")


def test_counters_are_looked_at_before_they_can_turn_twice(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    meter = machine.meter(0.0, packages(machine.folder))
    machine.node += 1.0
    machine.own += 1.0
    machine.count(0, 4_000_000)
    meter.look()  # too early
    now = 61.0
    meter.look()
    machine.count(0, 9_000_000)
    machine.node += 1.0
    machine.own += 1.0
    assert meter.joules() == pytest.approx(5.0 + 5.0)


def test_the_time_of_a_node_is_that_of_all_its_processes(tmp_path: Path) -> None:
    stat = tmp_path / "stat"
    stat.write_text("cpu  1 2 4 1000 1000 8 16 32 64 128\ncpu0 1 1 1 1\n")
    ticks = energy.os.sysconf("SC_CLK_TCK")
    assert node_cpu_seconds(stat) == 63 / ticks


def test_a_machine_without_nvidia_s_driver_has_no_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert gpu_counter(None) is None


class Nvml:
    """A library that knows two GPUs."""

    def __init__(self, joules: int | None) -> None:
        self.joules, self.asked = joules, []

    def nvmlInit_v2(self) -> int:  # noqa: N802 - NVML's name
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, index: object, _: object) -> int:  # noqa: N802
        self.asked.append(index.value)
        return 0

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes, _: object) -> int:  # noqa: N802
        self.asked.append(uuid)
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, _: object, used: object) -> int:  # noqa: N802
        if self.joules is None:
            return 3  # not supported
        used._obj.value = 1000 * self.joules
        return 0


@pytest.mark.parametrize(
    ("visible", "asked"), [(None, 0), ("1", 1), ("3,4", 3), ("GPU-ab,GPU-cd", b"GPU-ab")]
)
def test_the_counter_is_that_of_the_gpu_that_the_worker_sees(
    visible: str | None, asked: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvml = Nvml(7)
    monkeypatch.setattr("ctypes.CDLL", lambda _: nvml)
    read = gpu_counter(visible)
    assert read is not None
    assert nvml.asked == [asked]
    nvml.joules = 9
    assert read() == 9.0
    nvml.joules = None
    assert read() == 9.0
    assert gpu_counter(visible) is None


def test_a_ledger_has_what_came_since_it_was_asked_before(machine: Machine) -> None:
    computed: dict[str, float | None] = {"train": 2.0, "valid": None}
    ledger = Ledger(None, 1, lambda: computed, machine.meter(0.0, []))
    machine.own += 1.0
    assert ledger.since() == ({"train": 2.0}, WATTS, "an estimate")
    computed = {"train": 2.5, "valid": 0.0}
    assert ledger.since() == ({"train": 0.5, "valid": 0.0}, 0.0, "an estimate")
    assert Ledger(None, 1, dict, machine.meter(0.0, [])).since().feature_seconds is None
