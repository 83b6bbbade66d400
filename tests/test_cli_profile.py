"""``icr-rag profile``, from documents or labels to a profile that a reranker reads."""

from __future__ import annotations

import numpy as np
import pytest
from beir import write_beir
from profiling_data import planted
from test_profiling_queries import CORPUS
from tiny import byte_tokenizer, tiny_model
from typer.testing import CliRunner

from icr_rag import Reranker
from icr_rag.cli.app import app
from icr_rag.errors import InputError, MissingDependencyError
from icr_rag.evaluation.datasets import Dataset
from icr_rag.model.reading import READINGS
from icr_rag.profiles import Profile
from icr_rag.profiling import collect as collecting
from icr_rag.profiling.collect import collect, profiling_config
from icr_rag.profiling.curve import layer_curve
from icr_rag.profiling.plot import plot_profile
from icr_rag.profiling.samples import load_samples
from icr_rag.scoring.base import Cost


def run(*arguments):
    return CliRunner().invoke(app, ["profile", *map(str, arguments)])


def small(model_folder, *more):
    return ("--model", model_folder, "--framework", "pointwise", "--limit", 6, "--depth", 4,
            "--size", 4, "--max-document-tokens", 40, *more)  # fmt: skip


def test_label_free_profile_is_made_resumed_and_used(model_folder, notes, tmp_path, monkeypatch):
    out, picture = tmp_path / "profile.json", tmp_path / "study.svg"
    result = run(notes, "--out", out, "--plot", picture, *small(model_folder))
    assert result.exit_code == 0, result.output
    profile = Profile.load(out)
    assert (profile.scoring, profile.framework, len(profile.heads)) == ("attention", "pointwise", 4)
    assert profile.data["label-free"] == ["notes, label-free"]
    assert profile.data["queries"] == {"notes, label-free": 6}
    assert profile.curve is not None
    assert "window" in picture.read_text()
    assert "6 queries are few" in result.output

    # Another choice reads nothing again.
    def fail(*arguments):
        raise RuntimeError("read again")

    monkeypatch.setattr(collecting, "_read", fail)
    again = tmp_path / "profile.json"
    result = run(notes, "--out", again, "--method", "core", *small(model_folder))
    assert result.exit_code == 0, result.output
    assert len({item.weight for item in Profile.load(again).heads}) == 1
    # Other readings are.
    result = run(notes, "--out", again, *small(model_folder, "--max-query-tokens", 9))
    assert "read again" in str(result.exception)

    with Reranker(model=model_folder, profile=str(out)) as reranker:
        ranking = reranker.rank("tide?", ["tide and moon", "sand", "kelp"])
    assert sorted(ranking.usage.layers) == sorted({h.layer for h in Profile.load(out).heads})


def test_labelled_queries_by_half(model_folder, tmp_path):
    folder = write_beir(tmp_path / "data")
    out = tmp_path / "p.json"
    result = run(folder, "--out", out, *small(model_folder))
    assert result.exit_code == 0, result.output
    assert Profile.load(out).data["label-free"] == []
    samples = load_samples(tmp_path / "p.json.samples.npz")
    assert {sample.group for sample in samples} == {"data"}


def test_profiles_of_a_tail_that_documents_share(model_folder, notes, tmp_path):
    out = tmp_path / "p.json"
    shared = ("--framework", "listwise", "--document-states", "independent")
    result = run(notes, "--out", out, *small(model_folder), *shared)
    assert result.exit_code == 0, result.output
    profile = Profile.load(out)
    assert (profile.framework, profile.document_states) == ("listwise", "independent")
    # Documents that do not see each other say nothing of their order.
    assert profile.first_stage_weight > 0
    with Reranker(model=model_folder, profile=str(out), document_states="independent") as reranker:
        first = reranker.rank("tide?", ["tide and moon", "sand", "kelp"])
        assert reranker.rank("tide?", ["tide and moon", "sand", "kelp"]).scores == first.scores
    assert sorted(first.usage.layers) == sorted({h.layer for h in profile.heads})


def test_mixed_profiles_weigh_likelihood(model_folder, notes, tmp_path):
    out = tmp_path / "p.json"
    result = run(notes, "--out", out, "--scoring", "mixed", *small(model_folder))
    assert result.exit_code == 0, result.output
    assert Profile.load(out).likelihood_weight in (1.0, 1.67, 2.5, 4.0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "best"], "learned, core, qrhead, greedy, window"),
        (["--queries", "some"], "labelled, label-free"),
        (["--queries", "labelled"], "no labelled queries"),
        (
            ["--kinds", "abstract"],
            "title, sentence, passage, keywords, heading, docstring, question",
        ),
        (["--parity", "both"], "even and odd"),
        (["--scoring", "generation"], "reads no attention"),
        (["--plot", "study.gif"], ".png or .svg"),
    ],
)
def test_mistakes_are_one_line(model_folder, notes, tmp_path, arguments, message):
    result = run(notes, "--out", tmp_path / "p.json", *arguments, "--model", model_folder)
    assert result.exit_code != 0
    shown = str(result.exception) if result.exception else result.output
    assert message in " ".join((shown + result.output).split())


def test_readings_are_those_that_are_scored_with():
    base = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), framework="pointwise")
    texts = dict(list(CORPUS.items())[:5])
    data = Dataset("x", texts, {"q": "tide and moon"}, {"q": {"d1": 2}})
    run_ = {"q": list(texts), "empty": []}
    reranker = base.with_config(**_changed(base.config))
    (sample,) = collect(reranker, data, run_, ["q"], depth=4, shuffle=None)
    assert sample.readings.shape == (4, 5, 4, len(READINGS))
    assert sample.grades.tolist() == [0, 2, 0, 0]
    assert sample.ideal.tolist() == [2]
    scorer = reranker.scorer
    ids = scorer.prompts.encode_documents([d.content for d in list(texts.values())[:4]])
    direct = scorer.read_documents(scorer.prompts.encode_query("tide and moon"), ids, Cost())
    np.testing.assert_array_equal(sample.readings, direct.numpy().reshape(sample.readings.shape))


def _changed(config):
    made = profiling_config(config)
    return {name: value for name, value in made if value != getattr(config, name)}


def test_pictures(tmp_path, monkeypatch):
    samples = planted(10)
    curve = layer_curve(samples, resamples=50)
    paths = [tmp_path / "a.png", tmp_path / "a.svg"]
    plot_profile(paths, curve, np.zeros((5, 3)))
    assert paths[0].read_bytes().startswith(b"\x89PNG")
    first = paths[1].read_bytes()
    plot_profile(paths, curve, np.zeros((5, 3)))
    assert paths[1].read_bytes() == first
    with pytest.raises(InputError, match="png or"):
        plot_profile([tmp_path / "a.pdf"], curve, np.zeros((5, 3)))
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"icr-rag\[plot\]"):
        plot_profile(paths, curve, np.zeros((5, 3)))
