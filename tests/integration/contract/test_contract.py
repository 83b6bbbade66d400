"""Every behaviour holds on every component of ours, or its framework does not define it."""

from __future__ import annotations

import pytest
from behaviours import BEHAVIOURS
from outcomes import FAILS, HOLDS, NOT_DEFINED


@pytest.mark.parametrize("name", BEHAVIOURS)
def test_holds(results, ours, name):
    _, outcomes = results(ours)
    assert outcomes[name].status != FAILS, outcomes[name].detail


def test_most_behaviours_are_defined(results, ours):
    """A column of dashes would show nothing."""
    _, outcomes = results(ours)
    undefined = [name for name, outcome in outcomes.items() if outcome.status == NOT_DEFINED]
    assert sum(outcome.status == HOLDS for outcome in outcomes.values()) >= 18, undefined
