"""``icr-rag profile --calibrate``: from queries to a profile with probabilities."""

from __future__ import annotations

import json

import pytest
from tiny import tiny_model
from typer.testing import CliRunner

from icr_rag import Reranker
from icr_rag.cli.app import app
from icr_rag.errors import ConfigError, InputError
from icr_rag.profiles import HeadWeight, Profile, Shape
from icr_rag.profiling.collect import profiling_config

WORDS = ["tin", "lead", "zinc", "oak", "fir", "moon", "tide", "kelp", "sand", "wire", "heat", "ore"]
LIKELIHOOD = {"scoring": "likelihood"}
YES_NO = {"scoring": "likelihood", "likelihood": "yes_no"}
ATTENTION = {"framework": "pointwise"}


def run(*arguments):
    return CliRunner().invoke(app, ["profile", *map(str, arguments)])


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    path = tmp_path_factory.mktemp("heads") / "heads.json"
    chosen = (HeadWeight(layer=1, head=2, reading="log_mass"),)
    shape = Shape.of(tiny_model("llama").config)
    Profile(model="t", shape=shape, framework="pointwise", heads=chosen, method="by hand").save(
        path
    )
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory, model_folder, heads):
    """BEIR folders, by method, whose judgements are what the random weights take for relevant,
    but for a fifth of them."""
    made = {}

    def of(name, fields):
        if name in made:
            return made[name]
        folder = made[name] = tmp_path_factory.mktemp(name)
        texts = {f"d{n}": " ".join(WORDS[n : n + 4]) + f" {n}." for n in range(8)}
        rows = [{"_id": key, "text": text} for key, text in texts.items()]
        queries = {f"{n}": f"which {WORDS[n]} {WORDS[-n]}?" for n in range(12)}
        qrels, runs = ["query-id\tcorpus-id\tscore"], ["query-id\tcorpus-id\trank\tscore"]
        profile = {"profile": str(heads)} if fields is ATTENTION else {}
        with Reranker(model=model_folder, dtype="float32", score_mode="explained",
                      **profile, **fields) as ranker:  # fmt: skip
            for number, (query, text) in enumerate(queries.items()):
                ranking = ranker.rank(text, list(texts.values()))
                best = [hit.index for hit in ranking][: 2 + number % 2]
                if number % 3 == 0:
                    best[-1] = ranking[5].index
                qrels += [f"{query}\td{index}\t1" for index in best]
                runs += [f"{query}\t{key}\t{rank}\t{9 - rank}" for rank, key in enumerate(texts, 1)]
        (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / "queries.jsonl").write_text(
            "\n".join(json.dumps({"_id": key, "text": text}) for key, text in queries.items())
        )
        (folder / "qrels.tsv").write_text("\n".join(qrels) + "\n")
        (folder / "run.tsv").write_text("\n".join(runs) + "\n")
        return folder

    return of


def settings(model_folder, *more):
    return ("--model", model_folder, "--dtype", "float32", "--depth", 8, *more)


@pytest.mark.parametrize(
    ("name", "fields", "flags"),
    [
        ("query", LIKELIHOOD, ("--scoring", "likelihood")),
        ("yes_no", YES_NO, ("--scoring", "likelihood", "--likelihood", "yes_no")),
    ],
)
def test_likelihood_is_calibrated_and_used(name, fields, flags, folders, model_folder, tmp_path):
    folder, out, picture = folders(name, fields), tmp_path / "p.json", tmp_path / "r.svg"
    result = run(folder, "--out", out, "--plot", picture, "--target-precision", 0.7,
                 "--target-recall", 0.9, *settings(model_folder, *flags))  # fmt: skip
    assert result.exit_code == 0, result.output
    profile = Profile.load(out)
    assert (profile.scoring, profile.likelihood) == ("likelihood", name)
    assert (profile.heads, profile.layers) == ((), None)
    found = profile.calibration
    assert found.kind == "logistic"
    assert found.data["queries"] == 12
    assert found.measured["pairs"] == 96
    assert [one.target for one in found.thresholds] == ["precision", "recall"]
    assert "share that is relevant" in picture.read_text()
    for said in ("Brier", "ECE", "reliability", "answerable", "recall 0.9: score_threshold"):
        assert said in result.output
    fields = {"model": model_folder, "dtype": "float32", "profile": str(out), **fields}
    with Reranker(**fields, score_mode="probability") as ranker:
        ranking = ranker.rank("which tin?", ["tin", "oak", " "])
        assert 0 < ranking[0].score < 1
        assert ranking.answerable is not None
    # Another one in the file's place, for scores of the same kind.
    result = run(folder, "--out", out, "--calibrate", "isotonic", *settings(model_folder, *flags))
    assert result.exit_code == 0, result.output
    assert Profile.load(out).calibration.kind == "isotonic"


def test_heads_stay_where_only_a_calibration_is_made(folders, heads, model_folder, tmp_path):
    folder, out = folders("attention", ATTENTION), tmp_path / "p.json"
    result = run(folder, "--out", out, "--profile", heads, *settings(model_folder))
    assert result.exit_code == 0, result.output
    before, after = Profile.load(heads), Profile.load(out)
    fitted = {"calibration", "abstention", "created", "versions"}
    assert after.model_dump(exclude=fitted) == before.model_dump(exclude=fitted)
    assert not (tmp_path / "p.json.samples.npz").exists()
    with Reranker(
        model=model_folder, dtype="float32", profile=str(out), score_mode="probability"
    ) as ranker:
        assert ranker.rank("which tin?", ["tin", "oak"]).answerable is not None
    # A calibration that is there already is replaced.
    again = run(folder, "--out", out, "--profile", out, *settings(model_folder))
    assert again.exit_code == 0, again.output
    assert Profile.load(out).calibration == after.calibration


def test_heads_are_chosen_and_calibrated_on_demand(folders, model_folder, tmp_path):
    folder, out = folders("attention", ATTENTION), tmp_path / "p.json"
    flags = settings(model_folder, "--framework", "pointwise", "--size", 4, "--plot",
                     tmp_path / "s.svg")  # fmt: skip
    result = run(folder, "--out", out, *flags)
    assert result.exit_code == 0, result.output
    assert Profile.load(out).calibration is None
    result = run(folder, "--out", out, "--calibrate", "logistic", *flags)
    assert result.exit_code == 0, result.output
    assert "calibrate on others with --profile" in " ".join(result.output.split())
    profile = Profile.load(out)
    assert len(profile.heads) == 4
    assert (tmp_path / "s.reliability.svg").is_file()
    with Reranker(
        model=model_folder, dtype="float32", profile=str(out), score_mode="probability"
    ) as ranker:
        assert len(ranker.rank("which tin?", ["tin", "oak"])) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--calibrate", "beta"), "--calibrate beta; allowed are logistic, isotonic, none"),
        (("--method", "best"), "--method best; allowed are .*, none"),
        (("--method", "none", "--calibrate", "none"), "nothing is left to do"),
        (("--target-precision", 0.9), "need --calibrate"),
        (("--scoring", "likelihood", "--method", "core"), "this scoring reads no attention"),
        (("--profile", "p.json", "--method", "core"), "--profile has heads already"),
    ],
)
def test_options_that_do_not_go_together_are_refused(flags, said, model_folder, tmp_path):
    result = run(tmp_path, "--out", tmp_path / "p.json", *settings(model_folder, *flags))
    assert isinstance(result.exception, InputError)
    import re

    assert re.search(said, str(result.exception))


def test_what_has_no_absolute_scores_is_refused_before_it_is_read(model_folder, tmp_path):
    for flags in (("--framework", "listwise"), ()):
        result = run(tmp_path, "--out", tmp_path / "p.json", "--calibrate", "logistic",
                     *settings(model_folder, *flags))  # fmt: skip
        assert isinstance(result.exception, ConfigError)
        assert "does not go with attention" in str(result.exception)


def test_a_model_without_heads_that_ship_says_so(folders, model_folder, tmp_path):
    result = run(folders("attention", ATTENTION), "--out", tmp_path / "p.json", "--method", "none",
                 *settings(model_folder, "--framework", "pointwise"))  # fmt: skip
    assert isinstance(result.exception, ConfigError)
    assert "choose heads with --method learned" in str(result.exception)


def test_profiling_for_heads_is_for_attention_as_before():
    from icr_rag import RerankerConfig

    with pytest.raises(ConfigError, match="reads no attention"):
        profiling_config(RerankerConfig(scoring="likelihood"))
