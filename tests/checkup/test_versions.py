"""Versions that must be equal on all nodes."""

import subprocess
import sys

import ray

import tlcluster
from tlcluster.checkup.versions import MISSING, difference, versions, versions_finding

DRIVER = {"python": "3.11.9", "tensorflow": "2.21.0", "ray": "2.60.0", "tlcluster": "0.1.0"}


def test_this_process_knows_its_versions() -> None:
    found = versions()
    assert found.keys() == DRIVER.keys()
    assert (found["ray"], found["tlcluster"]) == (ray.__version__, tlcluster.__version__)
    assert MISSING not in found.values()


def test_no_large_library_is_imported_for_its_version() -> None:
    code = (
        "import sys; from tlcluster.checkup.versions import versions; versions(); "
        "print(*{'ray', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "\n"


def test_equal_versions_are_no_fault() -> None:
    assert difference(DRIVER, DRIVER) == ""
    assert difference({**DRIVER, "python": "3.11.2"}, DRIVER) == ""
    assert versions_finding(DRIVER, DRIVER) == (
        "versions", "as the driver's: tensorflow 2.21.0, ray 2.60.0", "", "",
    )  # fmt: skip


def test_another_version_is_named_beside_the_driver_s() -> None:
    way_out = (
        "; install the same versions on all nodes, or use one environment that all of them see"
    )
    other = {**DRIVER, "tensorflow": "2.20.0"}
    assert versions_finding(other, DRIVER).found == "tensorflow 2.20.0, unlike the driver"
    assert difference(other, DRIVER) == (f"tensorflow is 2.20.0, and 2.21.0 at the driver{way_out}")
    assert difference({**DRIVER, "python": "3.12.2", "ray": MISSING}, DRIVER) == (
        "python is 3.12.2, and 3.11.9 at the driver; ray is missing, and 2.60.0 at the driver"
        + way_out
    )
