"""The lock file holds what the readable requirements ask for, each file of it by its hash, and names no server."""

from __future__ import annotations

import re

from packaging.requirements import Requirement

from alexnet import runs

LOCK = (runs.PROJECT / "requirements.lock").read_text(encoding="utf-8")
ENTRIES = [entry for entry in re.split(r"\n(?=\S)", LOCK) if not entry.startswith("#")]


def test_each_requirement_is_locked_to_a_version_that_it_allows():
    locked = dict(re.match(r"([\w.-]+)==(\S+)", entry).groups() for entry in ENTRIES)
    lines = (runs.PROJECT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    wanted = [Requirement(line.partition("#")[0]) for line in lines if line.partition("#")[0].strip()]
    assert len(wanted) > 10
    assert [str(w) for w in wanted if not w.specifier.contains(locked.get(w.name, "0"))] == []


def test_each_package_has_hashes_and_none_comes_from_a_place_of_its_own():
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}$", entry.rstrip()) for entry in ENTRIES)
    assert "://" not in LOCK and "index" not in LOCK
