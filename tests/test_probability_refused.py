"""Probabilities that there are none of: settings that do not go together, and damaged files."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
from probability_parts import (
    ATTENTION,
    DOCUMENTS,
    ISOTONIC,
    LIKELIHOOD,
    LOGISTIC,
    METHODS,
    MIXED,
    QUERY,
    WEIGHTS,
    YES_NO,
    bare,
    maker,
    of_model,
)
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.profiles import Calibration, Profile


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    return maker(tmp_path_factory.mktemp("profiles"))


# --- what does not go together -----------------------------------------------------------------


@pytest.mark.parametrize("fields", METHODS.values(), ids=METHODS)
def test_without_a_calibration_it_is_refused_with_the_way_to_one(fields):
    with pytest.raises(ConfigError, match=r"needs calibration.*icr-rag profile .*--calibrate"):
        of_model(fields, score_mode="probability").rank(QUERY, DOCUMENTS)
    with pytest.raises(ConfigError, match=r"needs abstention.*icr-rag profile .*--calibrate"):
        of_model(fields, score_mode="explained", min_answerable=0.5).rank(QUERY, DOCUMENTS)


def test_a_profile_that_lacks_one_is_refused(make):
    path = make(LIKELIHOOD, LOGISTIC, None)
    with pytest.raises(ConfigError, match=r"min_answerable=0.5 needs abstention, and profile="):
        of_model(LIKELIHOOD, profile=path, score_mode="probability", min_answerable=0.5).warm_up()
    with pytest.raises(ConfigError, match="means nothing here"):
        of_model(LIKELIHOOD, profile=path, score_mode="explained").warm_up()
    path = make(LIKELIHOOD, None, WEIGHTS)
    with pytest.raises(ConfigError, match=r"score_mode='probability' needs calibration"):
        of_model(LIKELIHOOD, profile=path, score_mode="probability").warm_up()


@pytest.mark.parametrize(
    ("fields", "changes", "part"),
    [
        (LIKELIHOOD, {"prompt": "other"}, "prompt"),
        (LIKELIHOOD, {"documents without content": "nothing"}, "documents without content"),
        (YES_NO, {}, "prompt"),
        (ATTENTION, {"heads and their weights": "0"}, "heads and their weights"),
        (MIXED, {"heads and their weights": "0"}, "heads and their weights"),
    ],
)
def test_scores_of_another_basis_get_no_probability(fields, changes, part, make, tmp_path):
    profile = Profile.load(make(fields))
    basis = {**profile.calibration.basis, **changes}
    path = tmp_path / "other.json"
    profile.model_copy(
        update={"calibration": profile.calibration.model_copy(update={"basis": basis})}
    ).save(path)
    more = {"yes_no_template": "qwen3_reranker"} if fields is YES_NO else {}
    with pytest.raises(ConfigError, match=f"was fitted on scores of other {part}; leave"):
        of_model({**fields, **more}, profile=str(path), score_mode="probability").warm_up()


def test_other_heads_are_another_basis(make, tmp_path):
    """A calibration goes with the heads of its own profile, however they came to be others."""
    values = json.loads(Path(make(ATTENTION)).read_text(encoding="utf-8"))
    for number, change in enumerate(({"weight": 0.7}, {"reading": "max"}, {"head": 2})):
        changed = copy.deepcopy(values)
        changed["heads"][0] |= change
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(changed))
        ranker = of_model(ATTENTION, profile=str(path), score_mode="probability")
        with pytest.raises(ConfigError, match="of other heads and their weights"):
            ranker.warm_up()
        # Heads are read all the same where nobody asks what scores mean.
        told = of_model(ATTENTION, profile=str(path), score_mode="explained")
        assert told.rank(QUERY, DOCUMENTS).answerable is None
    mixed = json.loads(Path(make(MIXED)).read_text(encoding="utf-8"))
    path.write_text(json.dumps({**mixed, "likelihood_weight": 2.5}))
    with pytest.raises(ConfigError, match="of other heads and their weights"):
        of_model(MIXED, profile=str(path), score_mode="probability").warm_up()


def test_kept_states_and_cuts_are_no_other_basis(make):
    ranker = of_model(
        LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability",
        document_states="independent", max_document_tokens=9, prefill_chunk=64,
    )  # fmt: skip
    assert len(ranker.rank(QUERY, DOCUMENTS)) == 4


def test_a_profile_of_another_model_or_method_is_refused(make):
    other = Reranker.from_model(
        tiny_model("qwen2"), byte_tokenizer(), profile=make(LIKELIHOOD), score_mode="probability",
        **LIKELIHOOD,
    )  # fmt: skip
    with pytest.raises(ConfigError, match="was made for tiny"):
        other.warm_up()
    with pytest.raises(ConfigError, match=r"likelihood='query', not for likelihood"):
        of_model(YES_NO, profile=make(LIKELIHOOD), score_mode="probability").warm_up()


@pytest.mark.parametrize("mode", ["raw", "share", "rank"])
def test_settings_of_absolute_scores_mean_nothing_to_others(mode):
    with pytest.raises(ConfigError, match=r"profile='p.json' means nothing.*leave it out"):
        RerankerConfig(profile="p.json", score_mode=mode, **LIKELIHOOD)
    with pytest.raises(ConfigError, match=r"min_answerable=0.5 means nothing.*leave it out"):
        RerankerConfig(min_answerable=0.5, score_mode=mode, **LIKELIHOOD)


@pytest.mark.parametrize("value", [0, -0.1, 1.1, math.nan, math.inf])
def test_min_answerable_is_a_probability(value):
    with pytest.raises(ConfigError, match="min_answerable="):
        RerankerConfig(min_answerable=value, score_mode="probability", **LIKELIHOOD)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"framework": "listwise"}, "does not go with attention"),
        ({"scoring": "generation"}, "does not go with generation"),
        ({**LIKELIHOOD, "framework": "setwise"}, "does not go with likelihood"),
        (
            {**LIKELIHOOD, "document_states": "independent", "cascade": 3},
            "does not go with cascade",
        ),
        ({**LIKELIHOOD, "fusion": "rrf"}, "does not go with fusion='rrf'"),
    ],
)
def test_what_has_no_absolute_scores_has_no_probability(fields, said):
    with pytest.raises(ConfigError, match=f"score_mode='probability' {said}"):
        RerankerConfig(score_mode="probability", **fields)


def test_switching_drops_what_means_nothing():
    config = RerankerConfig(
        score_mode="probability", min_answerable=0.5, score_threshold=0.2, profile="p", **LIKELIHOOD
    )
    other = config.switched(framework="listwise")
    assert (other.score_mode, other.min_answerable, other.profile) == ("raw", None, None)
    assert config.switched(score_mode="raw").profile is None
    kept = config.switched(likelihood="yes_no")
    assert (kept.score_mode, kept.min_answerable, kept.profile) == ("probability", 0.5, "p")


# --- files -----------------------------------------------------------------------------------


def test_a_file_comes_back_as_it_was(make, tmp_path):
    for fields in METHODS.values():
        for calibration in (LOGISTIC, ISOTONIC):
            profile = Profile.load(make(fields, calibration))
            profile.save(tmp_path / "again.json")
            assert Profile.load(tmp_path / "again.json") == profile
    plain = Profile(**bare(ATTENTION))
    plain.save(tmp_path / "plain.json")
    # As before there were calibrations.
    assert not {"calibration", "abstention", "likelihood"} & set(
        json.loads((tmp_path / "plain.json").read_text())
    )


DAMAGES = {
    "slope must be above 0": {"calibration": {"slope": 0.0}},
    "slope must be above 0 ": {"calibration": {"slope": -1.0}},
    "not finite": {"calibration": {"intercept": math.inf}},
    "not a number": {"calibration": {"slope": math.nan}},
    "no slope": {"calibration": {"slope": None}},
    "unknown kind": {"calibration": {"kind": "beta"}},
    "knots of a line": {"calibration": {"knots": [[0, 0.1], [1, 0.2]]}},
    "one knot": {"calibration": {**ISOTONIC, "slope": None, "intercept": None, "knots": [[0, 1]]}},
    "knots fall": {"calibration": {**ISOTONIC, "slope": None, "intercept": None,
                                   "knots": [[0, 0.2], [1, 0.1]]}},
    "knots stand still": {"calibration": {**ISOTONIC, "slope": None, "intercept": None,
                                          "knots": [[0, 0.1], [0, 0.2]]}},
    "no probability": {"calibration": {**ISOTONIC, "slope": None, "intercept": None,
                                       "knots": [[0, 0.1], [1, 1.2]]}},
    "unknown field": {"calibration": {"temperature": 2}},
    "weights lack one": {"abstention": {"weights": {"top": 1.0}}},
    "weights not finite": {"abstention": {"weights": {**WEIGHTS, "gap": math.nan}}},
    "no basis": {"calibration": {"basis": None}},
    "a threshold": {"calibration": {"thresholds": [{"target": "F1", "wanted": 0.5}]}},
    "heads": {"heads": [{"layer": 0, "head": 0}]},
    "layers": {"layers": [0, 1]},
    "a first stage": {"first_stage_weight": 0.3},
    "no variant": {"likelihood": ""},
    "listwise": {"framework": "listwise"},
    "nothing": {"calibration": None, "abstention": None},
}  # fmt: skip


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_file_is_refused(change, make, tmp_path):
    values = json.loads(Path(make(LIKELIHOOD)).read_text(encoding="utf-8"))
    for name, value in change.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    path = tmp_path / "damaged.json"
    path.write_text(json.dumps(values))
    for read in (
        lambda: Profile.load(path),
        lambda: of_model(LIKELIHOOD, profile=str(path), score_mode="probability").warm_up(),
    ):
        with pytest.raises(ConfigError, match=r"(is no profile|is not JSON)"):
            read()


def test_a_profile_without_absolute_scores_cannot_have_a_calibration():
    calibration = Calibration(**LOGISTIC, basis={})
    with pytest.raises(ValueError, match="has no absolute scores"):
        Profile(
            **{**bare(ATTENTION), "framework": "listwise"},
            calibration=calibration,
        )
