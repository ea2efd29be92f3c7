"""What comes with an installation: the SBOM of the lock, and the audit of all locks."""

import json
import re
import shlex
import subprocess
from typing import Any

import pytest
from test_project import LOCKS, PYPROJECT, ROOT, make


def command(target: str) -> list[str]:
    """What a target of the Makefile runs in the end."""
    return shlex.split(make("--dry-run", target).stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def sboms(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Two of them, made one after the other."""
    make(".venv-supply/.made")
    made = []
    for number in range(2):
        path = tmp_path_factory.mktemp("sbom") / f"{number}.json"
        words = [str(path) if word == "sbom.cdx.json" else word for word in command("sbom")]
        subprocess.run(words, cwd=ROOT, check=True, capture_output=True)
        made.append(path.read_bytes())
    return made


@pytest.mark.drill  # its programs have an environment of their own
def test_the_sbom_is_the_same_each_time_and_says_nothing_of_who_made_it(
    sboms: list[bytes],
) -> None:
    first, second = sboms
    assert first == second
    assert not re.search(rb"timestamp|serialNumber|/(?:home|root|tmp)/", first)


@pytest.mark.drill
def test_the_sbom_has_every_entry_of_the_lock_with_its_hashes(sboms: list[bytes]) -> None:
    sbom: dict[str, Any] = json.loads(sboms[0])
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == PYPROJECT["project"]["name"]
    listed = [
        (
            component["purl"],
            sorted(
                found["content"]
                for reference in component["externalReferences"]
                for found in reference["hashes"]
            ),
        )
        for component in sbom["components"]
    ]
    locked = [
        (
            f"pkg:pypi/{pin.requirement.name}@{pin.version}",
            sorted(one.removeprefix("--hash=sha256:") for one in pin.hashes),
        )
        for pin in LOCKS["requirements.txt"]
    ]
    assert sorted(listed) == sorted(locked)


def test_the_audit_reads_every_lock_as_it_is() -> None:
    program, *words = command("audit-deps")
    assert program == ".venv-supply/bin/pip-audit"
    assert set(words[2:]) - set(LOCKS) == {"--disable-pip", "--requirement"}
    assert words[:2] == ["--strict", "--require-hashes"]  # what cannot be audited is an error
    assert sorted(word for word in words if word in LOCKS) == sorted(LOCKS)
