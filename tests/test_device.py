"""Which number format "auto" is, by device and by what a processor is measured to be fast at."""

from __future__ import annotations

import pytest

from icr_rag.model import device


@pytest.mark.parametrize(
    ("ratio", "chosen"), [(6.0, "bfloat16"), (3.0, "bfloat16"), (2.9, "float32")]
)
def test_a_cpu_takes_the_format_that_it_is_fast_at(monkeypatch, ratio, chosen):
    seconds = {"float32": ratio, "bfloat16": 1.0}
    monkeypatch.setattr(device, "measure_layer_seconds", lambda: seconds)
    choice = device.choose_dtype("cpu", "auto", "float16")
    assert choice.dtype == chosen
    assert "measured" in choice.reason


def test_what_is_asked_for_is_taken(monkeypatch):
    monkeypatch.setattr(device, "measure_layer_seconds", lambda: pytest.fail("measured"))
    assert device.choose_dtype("cpu", "float16", None).dtype == "float16"
    assert device.choose_dtype("cuda:0", "auto", "float16").dtype == "float16"
