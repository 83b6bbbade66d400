"""The components under the contract, each built once, and their results."""

from __future__ import annotations

import pytest
from components import OURS, PEERS
from outcomes import outcomes
from tiny_folders import Folders


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    return Folders(tmp_path_factory.mktemp("contract"))


@pytest.fixture(scope="session")
def results(folders):
    """``results(entry)``: every behaviour on that component, tried once per session."""
    known = {}

    def of(entry):
        if not entry.installed():
            pytest.skip(f"{entry.key} needs {', '.join(entry.requires)}")
        if entry.key not in known:
            component = entry.load(folders)
            known[entry.key] = component, outcomes(component)
        return known[entry.key]

    return of


@pytest.fixture(params=OURS, ids=lambda entry: entry.key)
def ours(request):
    return request.param


@pytest.fixture(params=PEERS, ids=lambda entry: entry.key)
def peer(request):
    return request.param
