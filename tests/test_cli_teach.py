"""``icr-rag profile --teacher``: heads that are taught by labels, scores, or both."""

from __future__ import annotations

import json

import pytest
from beir import write_beir
from test_cli_profile import run, small
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker
from icr_rag.errors import DataError, InputError, ModelLoadError
from icr_rag.model.reading import READINGS
from icr_rag.profiles import Profile
from icr_rag.profiling import collect as collecting
from icr_rag.profiling import teacher_scores
from icr_rag.profiling.samples import load_samples, standardise
from icr_rag.profiling.teachers import LIKELIHOOD, average
from icr_rag.profiling.weights import learn_weights

LOG_MASS = READINGS.index("log_mass")


def flags(model_folder, *more):
    """As the other tests of profiles, with what did best for a teacher."""
    size = small(model_folder).index("--size")
    every = small(model_folder)
    return (*every[:size], *every[size + 2 :], *more)


def made(out, *arguments):
    result = run(*arguments, "--out", out)
    assert result.exit_code == 0, result.output
    return Profile.load(out), result


def test_queries_without_labels_are_taught_by_likelihood(model_folder, notes, tmp_path):
    out = tmp_path / "p.json"
    profile, result = made(out, notes, *flags(model_folder))
    assert profile.data["taught by"] == "likelihood"
    assert len(profile.heads) == 20
    samples = load_samples(tmp_path / "p.json.samples.npz")
    assert all(sample.likelihood is not None for sample in samples)
    # One pass gave both.
    assert not (tmp_path / "p.json.teachers.jsonl").exists()
    assert profile.heads == learn_weights(samples, l2=15.0, teacher=average([LIKELIHOOD]))
    assert set(profile.held_out.figures()) == {"attention", "mixed", "likelihood"}
    assert (profile.held_out.queries, profile.held_out.groups) == (6, 0)
    assert f"{profile.held_out.attention:.4f}" in result.output
    assert (profile.scoring, profile.likelihood_weight) == ("attention", 0.0)


def test_labels_are_blended_in_where_there_are_any(model_folder, tmp_path):
    out = tmp_path / "p.json"
    folder = write_beir(tmp_path / "data")
    profile, _ = made(out, folder, *flags(model_folder))
    assert profile.data["taught by"] == "likelihood, labels"
    samples = load_samples(tmp_path / "p.json.samples.npz")
    assert profile.heads == learn_weights(samples, l2=40.0, teacher=average(["blend"]))
    profile, _ = made(out, folder, *flags(model_folder, "--teacher", "labels"))
    assert profile.heads == learn_weights(samples, l2=20.0, size=64)
    profile, _ = made(out, folder, *flags(model_folder, "--teacher", "labels", "--l2", 3))
    assert profile.heads == learn_weights(samples, l2=3.0, size=64)


WAYS = {
    "joint": ("--framework", "listwise"),
    "pointwise": (),
    "shared": ("--framework", "listwise", "--document-states", "independent"),
    "blind": ("--framework", "listwise", "--document-states", "blind"),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_of_reading_is_taught(way, model_folder, notes, tmp_path, monkeypatch):
    larger, out = tmp_path / "larger", tmp_path / "p.json"
    tiny_model("qwen2").save_pretrained(larger)
    byte_tokenizer().save_pretrained(larger)
    asked = flags(model_folder, *way, "--limit", 4)
    profile, _ = made(out, notes, *asked, "--teacher", f"yes_no,{larger}")
    assert profile.data["taught by"] == f"yes_no, {larger}"
    assert profile.held_out.likelihood is not None
    # Another choice among what was asked asks nobody.

    def fail(*arguments):
        raise RuntimeError("asked again")

    monkeypatch.setattr(collecting, "_read", fail)
    monkeypatch.setattr(teacher_scores, "_score", fail)
    again, _ = made(out, notes, *asked, "--teacher", "likelihood,yes_no")
    assert again.heads != profile.heads
    result = run(notes, "--out", out, *asked, "--teacher", "mixed")
    assert "asked again" in str(result.exception)
    with Reranker(model=model_folder, profile=str(out), framework=again.framework,
                  document_states=again.document_states) as reranker:  # fmt: skip
        assert len(reranker.rank("tide?", ["tide and moon", "sand", "kelp"]).scores) == 3


def test_a_service_teaches_by_a_file(model_folder, notes, tmp_path):
    """Pairs out, scores in; a service that likes what one head likes makes this head first."""
    out, pairs, scores = (tmp_path / name for name in ("p.json", "pairs.jsonl", "scores.jsonl"))
    made(out, notes, *flags(model_folder))
    result = run(notes, "--out", out, "--write-pairs", pairs, *flags(model_folder))
    assert result.exit_code == 0, result.output
    assert f"24 pairs of a query and a document -> {pairs}" in " ".join(result.output.split())
    liked = {}
    for sample in load_samples(tmp_path / "p.json.samples.npz"):
        values = standardise(sample.readings[:, 3, 2, LOG_MASS])
        for name, value in zip(sample.documents, values, strict=True):
            liked[sample.query_id, name] = float(value)
    lines = []
    for line in pairs.read_text().splitlines():
        row = json.loads(line)
        score = liked[row["query_id"], row["doc_id"]]
        lines.append(json.dumps({**row, "score": 1e4 * score - 7}))
    scores.write_text("\n".join(lines[:-1]))
    result = run(notes, "--out", out, *flags(model_folder), "--teacher", scores)
    assert isinstance(result.exception, DataError)
    assert "lacks the scores of 1 of 24 pairs" in str(result.exception)
    scores.write_text("\n".join(lines))
    profile, _ = made(out, notes, *flags(model_folder), "--teacher", scores)
    best = profile.heads[0]
    assert (best.layer, best.head, best.weight > 0) == (3, 2, True)
    both, _ = made(out, notes, *flags(model_folder), "--teacher", f"{scores},blend")
    assert both.data["taught by"] == f"0.5 {scores}, 0.25 likelihood, 0.25 labels"


def test_nothing_is_written_where_pairs_are(model_folder, notes, tmp_path):
    result = run(notes, "--out", tmp_path / "p.json", "--write-pairs", tmp_path / "pairs.jsonl",
                 *flags(model_folder))  # fmt: skip
    assert result.exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"notes.jsonl", "pairs.jsonl"}


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        (["--teacher", "blend", "--method", "core"], InputError, "core knows labels alone"),
        (["--l2", 3, "--method", "core"], InputError, "core has no penalty"),
        (["--teacher", "scores.jsonl"], DataError, "there is no file 'scores.jsonl'"),
        (["--teacher", "labels,"], DataError, "no file ''"),
        (["--teacher", "labels,labels"], InputError, "twice"),
        (["--teacher", "labels", "--method", "none"], InputError, "nothing is chosen"),
        (["--scoring", "likelihood", "--write-pairs", "x"], InputError, "nothing is chosen"),
    ],
)
def test_mistakes_are_told(arguments, error, said, model_folder, notes, tmp_path):
    result = run(notes, "--out", tmp_path / "p.json", *flags(model_folder), *arguments)
    assert isinstance(result.exception, error), result.output
    assert said in str(result.exception)


def test_a_teacher_that_is_no_model_is_named_before_anything_is_read(model_folder, notes, tmp_path):
    absent = tmp_path / "absent"
    out = tmp_path / "p.json"
    result = run(notes, "--out", out, *flags(model_folder), "--teacher", f"likelihood, {absent}")
    assert isinstance(result.exception, ModelLoadError)
    assert str(absent) in str(result.exception)
    assert {path.name for path in tmp_path.iterdir()} == {"notes.jsonl"}
