"""Fixtures that more than one test module uses."""

from __future__ import annotations

import json
import os
import threading

# Tests never reach for a hub, whatever they load.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# Nor do other libraries report anything: without a network their threads log at any moment.
os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "false"
os.environ.setdefault("DO_NOT_TRACK", "1")
# Processes that run tests side by side would get into each other's way with more threads.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings
from tiny import FAMILIES, byte_tokenizer, tiny_model

# How long an example takes is the machine's affair, not the code's; and a run of the same code says
# the same today and next year. Rare cases are looked for by `make test-explore`.
settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile(
    "explore", deadline=None, max_examples=1000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("ICR_RAG_HYPOTHESIS", "same"))


@pytest.fixture(scope="session", autouse=True)
def one_number_format():
    """What a test compares must not depend on the processor: "auto" is float32 on CPUs here."""
    from icr_rag.model import device

    with pytest.MonkeyPatch.context() as patch:
        seconds = {"float32": 1.0, "bfloat16": 1.0}
        patch.setattr(device, "measure_layer_seconds", lambda: dict(seconds))
        yield


@pytest.fixture
def own_records(caplog):
    """Gives what was logged so far by this package or from this thread; those of other libraries
    may log at any moment."""
    thread = threading.get_ident()
    return lambda: [
        record
        for record in caplog.records
        if record.name.startswith("icr_rag") or record.thread == thread
    ]


@pytest.fixture(scope="session")
def tokenizer():
    return byte_tokenizer()


@pytest.fixture(scope="session", params=sorted(FAMILIES))
def family(request):
    """(name, eager model) for each architecture, with random weights."""
    return request.param, tiny_model(request.param)


@pytest.fixture(scope="session")
def llama():
    return tiny_model("llama")


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A local model folder, five layers, random weights."""
    target = tmp_path_factory.mktemp("model")
    tiny_model("llama").save_pretrained(target)
    byte_tokenizer().save_pretrained(target)
    return str(target)


@pytest.fixture(scope="session")
def embedded_folder():
    from icr_rag.model.embedded import ensure_embedded_model

    return ensure_embedded_model("smollm2-135m")


@pytest.fixture
def notes(tmp_path):
    """Documents in a .jsonl file, without labels."""
    from test_profiling_queries import CORPUS

    path = tmp_path / "notes.jsonl"
    lines = [
        json.dumps({"id": name, "title": d.title, "text": d.text}) for name, d in CORPUS.items()
    ]
    path.write_text("\n".join(lines))
    return path
