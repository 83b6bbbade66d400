"""Other components do what docs/contract.md says that they do, and the page is up to date."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from behaviours import BEHAVIOURS
from components import OURS, PEERS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def page():
    """The script that writes the page."""
    spec = importlib.util.spec_from_file_location("contract", ROOT / "scripts/generate_contract.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def exception_name(outcome):
    """An error's wording differs between Python versions; its type and all else does not."""
    name = outcome.detail.partition(":")[0]
    return name if name.endswith(("Error", "Exception")) else outcome.detail


def test_peer_does_what_is_recorded(results, peer, page):
    component, outcomes = results(peer)
    recorded = page.read_recorded()[peer.key]
    if component.versions() != recorded.versions:
        pytest.skip(f"recorded with {recorded.versions}; here is {component.versions()}")
    for name, outcome in outcomes.items():
        expected = recorded.outcomes[name]
        assert outcome.status == expected.status, (name, outcome.detail)
        assert exception_name(outcome) == exception_name(expected), name


def test_every_peer_and_behaviour_is_recorded(page):
    recorded = page.read_recorded()
    assert list(recorded) == [entry.key for entry in PEERS]
    assert all(list(column.outcomes) == list(BEHAVIOURS) for column in recorded.values())


def test_the_page_is_up_to_date(results, page):
    columns = {entry.key: page.column(*results(entry)) for entry in OURS}
    text = page.render(columns | page.read_recorded())
    assert page.TARGET.read_text(encoding="utf-8") == text, (
        "run: python scripts/generate_contract.py"
    )


def test_a_cross_names_what_happened(page):
    """The page can show a failure: a footnote with the exact outcome."""
    outcome = page.Outcome("fails", "ValueError: no | way")
    fine = page.Outcome("holds")
    column = page.Column("Peer", "peer 1.0", dict.fromkeys(BEHAVIOURS, fine))
    column.outcomes["ties"] = outcome
    text = page.render({"peer": column})
    assert "| ✗<sup>1</sup> |" in text
    assert "1. `ValueError: no | way`" in text
