"""``icr-rag demo`` and ``icr-rag doctor``, and the generated page of flags."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from icr_rag import cli
from icr_rag.cli import console
from icr_rag.cli import demo as demo_module
from icr_rag.cli import doctor as doctor_module
from icr_rag.cli.console import shown_layers
from icr_rag.config import RerankerConfig
from icr_rag.errors import MissingDependencyError
from icr_rag.model.cache_folder import cache_root
from icr_rag.reranker import Reranker

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def folder(model_folder):
    return model_folder


# --- demo -----------------------------------------------------------------------------------


def test_demo_data_is_sound():
    corpus = demo_module._read("demo_corpus.jsonl")
    queries = demo_module._read("demo_queries.jsonl")
    names = [row["id"] for row in corpus]
    assert len(set(names)) == len(names) >= 40
    assert len({row["text"] for row in corpus}) == len(corpus)
    assert len(queries) >= 6
    assert {row["relevant"] for row in queries} <= set(names)


def test_demo_candidates_hold_the_answers():
    for question in demo_module.load_questions():
        names = [document.id for document in question.candidates]
        assert len(set(names)) == len(names) == 10
        assert question.relevant in names, question.text


def test_demo_through_every_door(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert cli.main(["demo", "--model", folder, "--dtype", "float32"]) == 0
    out = capsys.readouterr().out
    questions = demo_module.load_questions()
    for question in questions:
        assert question.text in out
    for name in ("LlamaIndex", "LangChain"):
        assert f"{name}: the same order for all {len(questions)} questions" in out
    assert max(map(len, out.splitlines())) <= console.PIPE_WIDTH
    # The totals are those of the orders that the library gives.
    reranker = Reranker(model=folder, dtype="float32")
    reciprocal = [
        1
        / demo_module.rank_of(
            q.relevant, [h.document.id for h in reranker.rank(q.text, q.candidates)]
        )
        for q in questions
    ]
    assert f"{sum(reciprocal) / len(questions):.2f}" in out


def test_demo_says_which_extra_brings_a_framework(folder, capsys, monkeypatch):
    def missing(*_args):
        raise MissingDependencyError("LangChain needs langchain_core: pip install 'icr-rag[x]'")

    monkeypatch.setattr(demo_module, "_through_langchain", missing)
    assert cli.main(["demo", "--model", folder, "--dtype", "float32"]) == 0
    assert "LangChain: not installed. LangChain needs langchain_core" in capsys.readouterr().out


def test_demo_fails_when_a_framework_gives_another_order(folder, capsys, monkeypatch):
    monkeypatch.setattr(demo_module, "_through_llama_index", lambda *_: ["x"])
    assert cli.main(["demo", "--model", folder, "--dtype", "float32"]) == 1
    assert "LlamaIndex gave another order" in capsys.readouterr().err


# --- doctor ---------------------------------------------------------------------------------


def test_doctor_json(folder, capsys):
    code = cli.main(["doctor", "--json", "--model", folder, "--device", "cpu", "--layers", "1-2"])
    assert code == 0
    report = json.loads(capsys.readouterr().out)
    assert report["optional"]["bm25s"] == {
        "version": importlib.metadata.version("bm25s"),
        "extra": "cli",
    }
    assert report["device"] == "cpu"
    assert report["dtype"] in ("float32", "bfloat16")
    assert set(report["cpu_layer_seconds"]) == {"float32", "bfloat16"}
    assert report["cost"]["layers"] == "1-2 of 5"


def test_doctor_counts_what_the_engine_holds(folder):
    config = RerankerConfig(model=folder, device="cpu", dtype="float32", layers=(1, 2))
    cost = doctor_module.examine(config)["cost"]
    reranker = Reranker(config)
    held = sum(parameter.numel() for parameter in reranker.engine.decoder.parameters())
    assert cost["parameters"] == held
    assert cost["weight_bytes"] == 4 * held
    assert cost["whole_weight_bytes"] > cost["weight_bytes"]
    # 2 heads of 8 numbers of 4 bytes: keys and values in 2 layers, keys in the last one read.
    assert cost["cache_bytes_per_1000_tokens"] == 1000 * (2 * 2 + 1) * 2 * 8 * 4


def test_doctor_text(folder, capsys):
    assert cli.main(["doctor", "--model", folder, "--device", "cpu", "--dtype", "float32"]) == 0
    out = capsys.readouterr().out
    assert "float32 (set by the user)" in out
    assert "MiB of keys and values per 1,000 tokens" in out


def test_doctor_tells_the_cores_and_what_threads_do_not_fit(folder, capsys, monkeypatch):
    from icr_rag.model import threads

    arguments = ["doctor", "--model", folder, "--device", "cpu", "--dtype", "float32"]
    monkeypatch.setattr(threads, "cores", lambda: threads.Cores(8, 6, 2.5))
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    assert cli.main(arguments) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "8 visible, 6 allowed by affinity, a quota of 2.5: 2 usable" in out
    assert "OMP_NUM_THREADS=2" in out
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert cli.main([*arguments, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cores"] == {"visible": 8, "allowed": 6, "quota": 2.5, "usable": 2}
    assert report["threads"] == 2
    assert report["threads_advice"] is None


def test_doctor_names_the_extra_of_what_is_missing(folder, capsys, monkeypatch):
    monkeypatch.setattr(doctor_module, "_version", lambda name: None if name == "bm25s" else "1.0")
    assert cli.main(["doctor", "--model", folder, "--device", "cpu", "--dtype", "float32"]) == 0
    assert "pip install 'icr-rag[cli]'" in capsys.readouterr().out


def test_doctor_fetches_nothing(tmp_path, capsys, monkeypatch):
    def forbidden(*_args, **_fields):
        raise AssertionError("doctor fetched the embedded model")

    monkeypatch.setattr("icr_rag.model.loading.ensure_embedded_model", forbidden)
    assert cli.main(["doctor", "--cache-dir", str(tmp_path), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "not cached" in out
    assert str(cache_root(tmp_path)) in out.replace("\n", "")


def test_doctor_extras_match_the_project():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    brought = {
        requirement.split(">=")[0]: extra
        for extra in ("llama-index", "langchain", "cli", "gguf")
        for requirement in extras[extra]
    }
    assert brought == doctor_module._OPTIONAL


# --- documentation --------------------------------------------------------------------------


def test_documentation_is_up_to_date():
    spec = importlib.util.spec_from_file_location("docs", ROOT / "scripts/generate_cli_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.render(), (
        "run: python scripts/generate_cli_docs.py"
    )


@pytest.mark.parametrize(
    ("layers", "shown"),
    [([], ""), ([4], "4"), ([3, 4], "3-4"), ([0, 1, 2, 5, 7, 8], "0-2, 5, 7-8")],
)
def test_layers_are_shown_as_runs(layers, shown):
    assert shown_layers(layers) == shown


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ([], ["retrieval_scores=", "metadata['score']", "Set embedder=", "Weights by name: none"]),
        (["--embedder", "org/name"], ["Without such scores org/name embeds"]),
        (["--first-stage-weights", "dense=1,order=0.5"], ["Weights by name: dense 1, order 0.5"]),
        (["--fusion", "none"], ["does not count: fusion='none'"]),
        (["--fusion", "rrf"], ["fusion='rrf'; usage.fused"]),
    ],
    ids=str,
)
def test_doctor_says_what_of_the_first_stage_counts(folder, capsys, options, told):
    assert cli.main(["doctor", "--model", folder, "--json", *options]) == 0
    found = json.loads(capsys.readouterr().out)["first_stage"]
    assert [text for text in told if text not in found] == []
