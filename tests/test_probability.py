"""Probabilities and abstention: explained scores through what a profile says they mean."""

from __future__ import annotations

import copy
import json
import math
import pickle
import statistics
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig, cli
from icr_rag.errors import ConfigError
from icr_rag.profiles import Abstention, Calibration, HeadWeight, Profile, Shape
from icr_rag.profiles.calibration import features

QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Tin melts at 232 degrees.",
    "Lead is soft.",
    "Copper conducts heat well, which is why wires are made of it.",
    "Gold.",
]
HEADS = tuple(
    HeadWeight(layer=layer, head=head, reading="log_mass", weight=weight)
    for layer, head, weight in ((1, 0, 1.0), (2, 3, 0.5))
)
LIKELIHOOD = {"scoring": "likelihood"}
YES_NO = {"scoring": "likelihood", "likelihood": "yes_no"}
ATTENTION = {"framework": "pointwise"}
MIXED = {"scoring": "mixed"}
METHODS = {"likelihood": LIKELIHOOD, "yes/no": YES_NO, "attention": ATTENTION, "mixed": MIXED}
LOGISTIC = {"kind": "logistic", "slope": 3.0, "intercept": -0.5}
ISOTONIC = {"kind": "isotonic", "knots": ((-1.0, 0.1), (0.0, 0.2), (0.3, 0.2), (0.8, 0.95))}
WEIGHTS = {"top": 2.0, "gap": 1.0, "lead": 0.5, "spread": -1.0}


def of_model(fields, **more):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **{**fields, **more})


def bare(fields):
    """A profile with the heads of a method, where it reads any."""
    own = {"scoring": fields.get("scoring", "attention"), "framework": "pointwise",
           "model": "tiny", "shape": Shape.of(tiny_model("llama").config)}  # fmt: skip
    if own["scoring"] == "likelihood":
        return own | {"likelihood": fields.get("likelihood", "query")}
    return own | {"heads": HEADS, "likelihood_weight": 1.5 if own["scoring"] == "mixed" else 0.0}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Writes a profile for a method, fitted to its scores."""
    folder = tmp_path_factory.mktemp("profiles")
    made = {}

    def of(fields, calibration=LOGISTIC, weights=WEIGHTS):
        key = json.dumps([fields, calibration, weights])
        if key not in made:
            heads = folder / f"heads{len(made)}.json"
            named = {}
            if fields.get("scoring") != "likelihood":
                Profile(**bare(fields)).save(heads)
                named = {"profile": str(heads)}
            with of_model(fields, score_mode="explained", **named) as ranker:
                basis = ranker.scorer.basis()
            path = folder / f"{len(made)}.json"
            Profile(
                **bare(fields),
                calibration=calibration and Calibration(**calibration, basis=basis),
                abstention=weights and Abstention(intercept=-0.25, weights=weights, basis=basis),
            ).save(path)
            made[key] = str(path)
        return made[key]

    return of


def sigmoid(value):
    return 1 / (1 + math.exp(-value))


def line(score):
    return sigmoid(3 * score - 0.5)


def knots(score):
    """The isotonic map, written down piece by piece."""
    if score <= -1:
        return 0.1
    if score <= 0:
        return 0.2 + 0.1 * score
    if score <= 0.3:
        return 0.2
    return 0.95 if score >= 0.8 else 0.2 + 0.75 * (score - 0.3) / 0.5


def chance_of_answer(scores):
    ordered = sorted(scores, reverse=True)
    gap = ordered[0] - ordered[1] if len(ordered) > 1 else 0.0
    lead = ordered[0] - statistics.median(scores)
    spread = statistics.pstdev(scores)
    return sigmoid(-0.25 + 2 * ordered[0] + gap + 0.5 * lead - spread)


@pytest.mark.parametrize(("calibration", "direct"), [(LOGISTIC, line), (ISOTONIC, knots)])
@pytest.mark.parametrize("fields", METHODS.values(), ids=METHODS)
def test_it_equals_the_direct_computation(fields, calibration, direct, make):
    path = make(fields, calibration)
    ranker = of_model(fields, profile=path, score_mode="probability")
    explained = ranker.with_config(score_mode="explained").rank(QUERY, DOCUMENTS)
    found = ranker.rank(QUERY, DOCUMENTS)
    assert found.scores == pytest.approx([direct(s) for s in explained.scores], abs=1e-6)
    assert all(type(score) is float and 0 <= score <= 1 for score in found.scores)
    assert [hit.index for hit in found] == [hit.index for hit in explained]
    # Nothing of the first stage is in it.
    given = ranker.rank(QUERY, DOCUMENTS, retrieval_scores=[4.0, 3.0, 1.0, 9.0])
    assert given.scores == pytest.approx(found.scores, abs=1e-6)
    wanted = chance_of_answer(explained.scores)
    assert found.answerable == pytest.approx(wanted, abs=1e-6)
    assert explained.answerable == found.answerable


@pytest.mark.parametrize("fields", METHODS.values(), ids=METHODS)
@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(
    documents=st.lists(st.text("abc d.", max_size=40), min_size=1, max_size=24),
    size=st.sampled_from([1, 3, 8]),
    mode=st.sampled_from(["explained", "probability"]),
    kept=st.booleans(),
)
def test_splitting_a_list_changes_nothing(make, fields, documents, size, mode, kept):
    states = {"document_states": "independent"} if kept and fields is not YES_NO else {}
    ranker = of_model({**fields, **states}, profile=make(fields), score_mode=mode)
    whole = ranker.rank(QUERY, documents)
    parts = [documents[begin : begin + size] for begin in range(0, len(documents), size)]
    apart = [score for part in parts for score in ranker.rank(QUERY, part).scores]
    assert whole.scores == pytest.approx(apart, abs=1e-5)
    along = [hit.score for hit in whole]
    assert along == sorted(along, reverse=True)
    if mode == "probability":
        blank = [not text.strip() for text in documents]
        assert all((score == 0) for score, empty in zip(whole.scores, blank, strict=True) if empty)


def test_ties_are_broken_by_the_score_behind_them(make):
    flat = {"kind": "isotonic", "knots": ((50.0, 0.4), (60.0, 0.9))}
    ranker = of_model(LIKELIHOOD, profile=make(LIKELIHOOD, flat), score_mode="probability")
    found = ranker.rank(QUERY, [*DOCUMENTS, " "])
    explained = ranker.with_config(score_mode="explained").rank(QUERY, [*DOCUMENTS, " "])
    assert set(found.scores[:4]) == {0.4}
    assert [hit.index for hit in found] == [hit.index for hit in explained]
    # Not below what is not read: that is known to be nothing.
    assert found.scores[4] == 0.0


@settings(max_examples=60, deadline=None)
@given(
    scores=st.lists(st.floats(-200, 200), min_size=2, max_size=40),
    drawn=st.lists(st.tuples(st.floats(-9, 9), st.floats(0, 1)), min_size=2, max_size=9),
    slope=st.floats(1e-3, 1e3),
    intercept=st.floats(-50, 50),
)
def test_a_higher_score_never_has_a_lower_probability(scores, drawn, slope, intercept):
    xs = sorted({x for x, _ in drawn})
    ys = sorted(y for _, y in drawn)[: len(xs)]
    maps = [Calibration(kind="logistic", slope=slope, intercept=intercept, basis={})]
    if len(xs) > 1:
        pairs = tuple(zip(xs, ys, strict=True))
        maps.append(Calibration(kind="isotonic", knots=pairs, basis={}))
    for one in maps:
        along = [one.probability(score) for score in sorted(scores)]
        assert along == sorted(along)
        assert all(0 <= value <= 1 for value in along)


def test_features_of_a_list():
    assert features([0.2]) == {"top": 0.2, "gap": 0.0, "lead": 0.0, "spread": 0.0}
    found = features([0.1, 0.7, 0.4])
    assert found == pytest.approx({"top": 0.7, "gap": 0.3, "lead": 0.3, "spread": 0.2449490})


# --- where nothing answers -------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["explained", "probability"])
def test_below_min_answerable_there_are_no_hits(mode, make):
    plain = of_model(LIKELIHOOD, profile=make(LIKELIHOOD), score_mode=mode)
    whole = plain.rank(QUERY, DOCUMENTS)
    just, more = whole.answerable, min(1.0, whole.answerable + 1e-3)
    kept = plain.with_config(min_answerable=just).rank(QUERY, DOCUMENTS)
    assert (kept.hits, kept.abstained) == (whole.hits, False)
    left = plain.with_config(min_answerable=more, top_n=2).rank(QUERY, DOCUMENTS)
    assert (left.hits, left.abstained) == ((), True)
    assert (left.scores, left.answerable) == (whole.scores, whole.answerable)
    two = plain.with_config(min_answerable=just, top_n=2).rank(QUERY, DOCUMENTS)
    assert two.hits == whole.hits[:2]
    assert not whole.abstained


def test_the_list_is_judged_by_its_distinct_contents(make):
    ranker = of_model(LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability")
    once = ranker.rank(QUERY, DOCUMENTS)
    again = ranker.rank(QUERY, [*DOCUMENTS, "", *DOCUMENTS])
    assert again.answerable == pytest.approx(once.answerable, abs=1e-6)
    # Whatever is left out afterwards, it is a statement about what was given.
    for cut in ({"score_threshold": 1.0}, {"near_duplicates": 0.2}, {"top_n": 0}):
        found = ranker.with_config(**cut).rank(QUERY, DOCUMENTS)
        assert found.answerable == once.answerable
        assert not found.abstained


@pytest.mark.parametrize("documents", [[], ["", "  "]])
def test_of_nothing_nothing_answers(documents, make):
    ranker = of_model(
        LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability", min_answerable=0.01
    )
    found = ranker.rank(QUERY, documents)
    assert (found.hits, found.abstained, found.answerable) == ((), True, None)
    assert found.scores == (0.0,) * len(documents)
    shown = ranker.with_config(min_answerable=None).rank(QUERY, documents)
    assert (len(shown), shown.abstained, shown.answerable) == (len(documents), False, None)


def test_a_failure_that_is_let_through_is_no_abstention(make):
    ranker = of_model(
        LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability", min_answerable=1.0,
        on_error="passthrough",
    )  # fmt: skip
    found = ranker.rank("", DOCUMENTS)
    assert found.error
    assert (len(found), found.abstained, found.answerable) == (4, False, None)


def test_other_modes_do_not_tell(make):
    path = make(ATTENTION)
    for mode in ("raw", "share", "rank"):
        assert of_model(ATTENTION, profile=path, score_mode=mode).rank(
            QUERY, DOCUMENTS
        ).answerable is None  # fmt: skip
    weightless = make(ATTENTION, LOGISTIC, None)
    for mode in ("explained", "probability"):
        found = of_model(ATTENTION, profile=weightless, score_mode=mode).rank(QUERY, DOCUMENTS)
        assert found.answerable is None


def test_thresholds_are_in_probability(make):
    ranker = of_model(LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability")
    whole = ranker.rank(QUERY, DOCUMENTS)
    least = sorted(whole.scores)[2]
    found = ranker.with_config(score_threshold=least).rank(QUERY, [*DOCUMENTS, " "])
    assert found.hits == whole.hits[:2]
    for value in (0.0, 1.5, -1.0):
        with pytest.raises(ConfigError, match=r"score_threshold=.* above 0 and up to 1"):
            RerankerConfig(score_mode="probability", score_threshold=value, **LIKELIHOOD)


def test_all_ways_of_ranking_say_the_same(make):
    import asyncio

    ranker = of_model(
        LIKELIHOOD, profile=make(LIKELIHOOD), score_mode="probability", min_answerable=0.01
    )
    one = ranker.rank(QUERY, DOCUMENTS)
    other = asyncio.run(ranker.arank(QUERY, DOCUMENTS))
    many = ranker.rank_many([QUERY, QUERY], [DOCUMENTS, DOCUMENTS[:2]])
    assert other.scores == many[0].scores == one.scores
    assert other.answerable == many[0].answerable == one.answerable
    assert many[1].scores == pytest.approx(one.scores[:2], abs=1e-5)
    assert copy.deepcopy(ranker).rank(QUERY, DOCUMENTS).scores == one.scores
    twin = pickle.loads(pickle.dumps(one))
    assert (twin.answerable, twin.abstained) == (one.answerable, False)


@pytest.mark.parametrize("fields", [LIKELIHOOD, ATTENTION, MIXED], ids=str)
def test_documents_without_content_cost_less_than_a_tenth(fields, make):
    documents = [" ".join(f"w{number}{word:03}" for word in range(100)) for number in range(20)]
    ranker = of_model(fields, profile=make(fields), score_mode="probability")
    raw = {"score_mode": "raw", "fusion": "none"}
    plain = of_model(
        fields, **raw, **({} if fields is LIKELIHOOD else {"profile": make(fields)})
    ).rank(QUERY, documents).usage.tokens  # fmt: skip
    first = ranker.rank(QUERY, documents).usage.tokens
    assert plain < first < 1.1 * plain
    assert ranker.rank(QUERY, documents).usage.tokens == plain


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


# --- the command line ----------------------------------------------------------------------------


def test_the_command_line_tells(model_folder, make, tmp_path, capsys):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(DOCUMENTS)]
    path.write_text("\n".join(lines))
    fields = {"model": model_folder, "dtype": "float32", "score_mode": "probability",
              "profile": make(LIKELIHOOD), **LIKELIHOOD}  # fmt: skip
    wanted = Reranker(**fields).rank(QUERY, DOCUMENTS)
    asked = ["rerank", QUERY, str(path), "--scoring", "likelihood", "--model", model_folder,
             "--dtype", "float32", "--profile", make(LIKELIHOOD),
             "--score-mode", "probability"]  # fmt: skip
    assert cli.main([*asked, "--format", "json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["hits"][0]["score"] == wanted[0].score
    assert told["answerable"] == wanted.answerable
    assert cli.main([*asked, "--min-answerable", "0.999"]) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "nothing is shown: the list answers with probability" in shown.err
