"""scoring="auto": what the settings are for, and of that what the profile's figures say."""

from __future__ import annotations

import json
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig, cli
from icr_rag.config_auto import OPEN
from icr_rag.errors import ConfigError
from icr_rag.profiles import HeadWeight, HeldOut, Profile, Shape, shipped
from icr_rag.profiling.collect import profiling_config
from icr_rag.scoring.choice import UNMEASURED, choose

QUERY = "Which metal melts first?"
DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat.", "Gold."]
TEXT_CONFIG = tiny_model("llama").config
SHAPE = Shape.of(TEXT_CONFIG)
FIGURES = {"attention": 0.599, "likelihood": 0.627, "mixed": 0.635}


def held_out(**figures):
    return HeldOut(**figures, queries=547, groups=11)


def make(scoring="attention", figures=FIGURES, **changes):
    values = {
        "model": "somebody/tiny",
        "shape": SHAPE,
        "scoring": scoring,
        "framework": "pointwise",
        "heads": (HeadWeight(layer=2, head=2, reading="log_mass"),),
        "likelihood_weight": 1.0,
        "held_out": held_out(**figures) if figures else None,
    }
    return Profile(**{**values, **changes})


@pytest.fixture
def ships(monkeypatch):
    """Has these profiles ship in place of those in the package."""

    def put(*profiles):
        monkeypatch.setattr(shipped, "shipped_profiles", lambda: profiles)

    put(make(), make("mixed"))
    return put


@pytest.fixture
def saved(tmp_path):
    def save(*arguments, **changes):
        path = tmp_path / "profile.json"
        make(*arguments, **changes).save(path)
        return str(path)

    return save


def chosen(lm_head=True, **settings):
    return choose(RerankerConfig(**settings), TEXT_CONFIG, lm_head=lm_head)


def taken(**settings):
    return chosen(**settings).config.scoring


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


# --- what the settings are for --------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "scoring"),
    [
        ({"likelihood": "yes_no"}, "likelihood"),
        ({"likelihood": "yes_no", "yes_no_template": "qwen3_reranker"}, "likelihood"),
        ({"framework": "pairwise", "sort": "all_pairs"}, "likelihood"),
        ({"layers": (1, 2)}, "attention"),
        ({"heads": ((1, 2),)}, "attention"),
        ({"reading": "max"}, "attention"),
        ({"aggregation": "mean"}, "attention"),
        ({"token_mask": False}, "attention"),
        ({"calibration": "none"}, "attention"),
        ({"null_query": "nothing"}, "attention"),
        ({"window": 3, "stride": 1}, "attention"),
        ({"order": "given"}, "attention"),
        ({"double_query": True}, "attention"),
        ({"framework": "listwise"}, "attention"),
        ({"framework": "setwise", "set_size": 2}, "attention"),
        ({"document_states": "blind"}, "attention"),
        ({"score_mode": "lift"}, "attention"),
    ],
    ids=str,
)
def test_settings_say_what_they_are_for(ships, settings, scoring):
    assert taken(**settings) == scoring
    # Whatever the profile says, the settings count as they do where the scoring is named.
    assert tiny(**settings).rank(QUERY, DOCUMENTS).scores == (
        tiny(scoring=scoring, **settings).rank(QUERY, DOCUMENTS).scores
    )


@pytest.mark.parametrize(
    "settings",
    [
        {}, {"framework": "pointwise"}, {"document_states": "independent"}, {"top_n": 2},
        {"instruction": "question_answering"}, {"prefill_chunk": 16}, {"score_mode": "explained"},
        {"passages": "max"}, {"fusion": "none"}, {"diversity": 0.5}, {"score_mode": "share"},
        {"document_states": "independent", "cascade": 2},
    ],
    ids=str,
)  # fmt: skip
def test_settings_that_all_have_leave_it_to_the_figures(ships, settings):
    assert taken(**settings) == "mixed"
    assert taken(prefer="speed", **settings) == "attention"


def test_what_nothing_is_for_is_refused_as_it_was():
    with pytest.raises(ConfigError, match=r"likelihood='yes_no' means nothing with scoring='att"):
        RerankerConfig(likelihood="yes_no", layers=(1, 2))
    with pytest.raises(ConfigError, match=r"sort_top=3 means|sort='all_pairs'"):
        RerankerConfig(framework="pairwise", sort="all_pairs", sort_top=3)
    with pytest.raises(ConfigError, match=r"layers=\(0, 99\), but"):
        tiny(layers=(0, 99)).rank(QUERY, DOCUMENTS)


def test_absolute_scores_where_no_heads_are_known():
    """Attention has them pointwise only, and reads unknown models in one prompt."""
    assert taken(score_mode="explained") == "likelihood"
    assert tiny(score_mode="explained").rank(QUERY, DOCUMENTS).usage.scoring == "likelihood"


# --- what the figures say -------------------------------------------------------------------


def slow_best(figures):
    """The cheapest of those that nothing beats by .005 or more."""
    for name in OPEN:
        beaten = any(other - figures[name] >= 0.005 for other in figures.values())
        if not beaten:
            return name
    return None


@given(st.tuples(*[st.integers(0, 40)] * 3))
def test_the_best_by_its_figure_and_of_those_alike_the_cheapest(thousandths):
    # A quarter of a thousandth apart, so that no difference is a matter of rounding.
    figures = {name: 0.5 + n / 1024 for name, n in zip(OPEN, thousandths, strict=True)}
    with pytest.MonkeyPatch.context() as patch:
        profiles = (make(figures=figures), make("mixed"))
        patch.setattr(shipped, "shipped_profiles", lambda: profiles)
        assert taken() == slow_best(figures)
        assert taken(prefer="speed") == "attention"


def test_figures_may_stand_with_either_profile(ships):
    ships(make(figures=None), make("mixed"))
    assert taken() == "mixed"


@pytest.mark.parametrize(
    ("profiles", "scoring"),
    [
        # What was measured of mixed is not what would be read without its heads.
        ([make()], "likelihood"),
        ([make("mixed")], "mixed"),
        ([make("mixed", {"attention": 0.9, "likelihood": 0.5, "mixed": 0.6})], "mixed"),
        ([make(figures={"attention": 0.6, "mixed": 0.7})], "attention"),
        ([make(figures={"likelihood": 0.6}), make("mixed")], "attention"),
        ([make(figures=None), make("mixed", None)], "attention"),
        ([make(shape=SHAPE.model_copy(update={"hidden_size": 1}))], "attention"),
        ([], "attention"),
    ],
)
def test_a_figure_counts_where_what_was_measured_is_what_would_be_read(ships, profiles, scoring):
    ships(*profiles)
    assert taken() == scoring


def test_figures_of_query_likelihood_are_not_those_of_labels(ships):
    ships(make(framework="listwise", figures={"attention": 0.1, "likelihood": 0.9}))
    assert taken() == "likelihood"
    assert taken(framework="listwise") == "attention"


def test_reasons(ships):
    told = "held-out nDCG@10 over 547 queries: attention 0.599, likelihood 0.627, mixed 0.635"
    assert chosen().reason == told
    assert chosen(prefer="speed").reason == "prefer='speed'"
    assert chosen(window=2).reason == "the other settings are for it alone"
    assert chosen(scoring="mixed").reason == "as asked for"
    assert chosen(lm_head=False).reason == "the model has no LM head"
    alike = {"attention": 0.63, "likelihood": 0.6, "mixed": 0.634}
    ships(make(figures=alike), make("mixed"))
    assert chosen().reason.endswith("mixed 0.634; within 0.005 of the best, and cheaper")
    ships()
    assert chosen().reason == UNMEASURED


# --- profile=FILE ---------------------------------------------------------------------------


def test_a_file_is_read_as_what_it_was_made_for(ships, saved):
    for scoring in ("attention", "mixed"):
        found = chosen(profile=saved(scoring, None))
        assert found.config.scoring == scoring
        assert found.reason.endswith("was made for it")


@pytest.mark.parametrize("prefer", ["quality", "speed"])
@pytest.mark.parametrize("own", ["attention", "mixed"])
@pytest.mark.parametrize("better", ["likelihood", "own"])
def test_a_files_figures_may_speak_for_likelihood(saved, prefer, own, better):
    figures = {own: 0.6, "likelihood": 0.7 if better == "likelihood" else 0.5}
    found = chosen(profile=saved(own, figures), prefer=prefer)
    other = better == "likelihood" and prefer == "quality"
    assert found.config.scoring == ("likelihood" if other else own)
    assert (found.config.profile is None) == other


def test_a_file_whose_heads_another_setting_is_for_is_read(saved):
    path = saved("attention", {"attention": 0.5, "likelihood": 0.9}, framework="listwise")
    assert taken(profile=path) == "likelihood"
    assert taken(profile=path, framework="listwise") == "attention"
    assert taken(profile=path, window=3) == "attention"


def test_a_file_that_is_none_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        tiny(profile=str(tmp_path / "none.json")).rank(QUERY, DOCUMENTS)


# --- everywhere -----------------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["joint", "independent"])
def test_a_ranking_is_that_of_the_scoring_taken(ships, kept):
    auto, mixed = tiny(document_states=kept), tiny(scoring="mixed", document_states=kept)
    ranking = auto.rank(QUERY, DOCUMENTS)
    assert ranking.scores == mixed.rank(QUERY, DOCUMENTS).scores
    assert (ranking.usage.scoring, ranking.usage.layers) == ("mixed", (2,))
    assert ranking.usage.scoring_reason.startswith("held-out nDCG@10")
    assert [r.scores for r in auto.rank_many([QUERY] * 2, [DOCUMENTS] * 2)] == [ranking.scores] * 2
    assert auto.rank(QUERY, DOCUMENTS, instruction="Find metals.").usage.scoring == "mixed"
    assert auto.config.scoring == "auto"
    assert tiny(prefer="speed").rank(QUERY, DOCUMENTS).usage.scoring == "attention"
    assert mixed.rank(QUERY, DOCUMENTS).usage.scoring_reason == "as asked for"


def test_states_are_those_of_the_scoring_taken(ships, tmp_path):
    """Written by a reranker that names the scoring, and read by one that leaves it."""
    keep = {"document_states": "independent", "states_dir": str(tmp_path)}
    assert tiny(scoring="mixed", **keep).encode(DOCUMENTS).new == 4
    assert tiny(**keep).encode(DOCUMENTS).new == 0
    assert tiny(scoring="attention", **keep).encode(DOCUMENTS).new == 4


def test_a_cascade_reads_again_by_attention(ships):
    fields = {"document_states": "independent", "cascade": 2}
    found = tiny(**fields).rank(QUERY, DOCUMENTS)
    assert found.scores == tiny(scoring="mixed", **fields).rank(QUERY, DOCUMENTS).scores
    assert found.usage.scoring == "mixed"


@pytest.mark.parametrize("figures", [FIGURES, {"attention": 0.1, "likelihood": 0.9}, None])
def test_attention_is_read_whatever_is_taken(ships, figures):
    ships(make(figures=figures), make("mixed", None))
    reading = tiny().read_attention(QUERY, DOCUMENTS)
    layers = range(5) if reading.layers != [2] else [2]
    named = tiny(scoring="attention", framework="listwise", layers=(layers[0], layers[-1]))
    assert (reading.query == named.read_attention(QUERY, DOCUMENTS).query).all()


def test_a_model_without_lm_head_is_read_by_attention(ships):
    bare = Reranker.from_model(tiny_model("llama").model, byte_tokenizer())
    found = bare.rank(QUERY, DOCUMENTS)
    assert found.scores == tiny(scoring="attention").rank(QUERY, DOCUMENTS).scores
    assert (found.usage.scoring, found.usage.scoring_reason) == (
        "attention", "the model has no LM head",
    )  # fmt: skip


def test_the_repr_says_it_once_it_is_known(ships):
    reranker = tiny(top_n=2)
    before = repr(reranker)
    reranker.rank(QUERY, DOCUMENTS)
    reason = chosen().reason
    assert repr(reranker) == f"{before}  # scoring='mixed': {reason}"


def test_settings_are_kept_as_they_were_given():
    config = RerankerConfig(likelihood="yes_no")
    assert config.scoring == "auto"
    assert RerankerConfig.from_dict(config.to_dict()) == config
    assert config.settled() == RerankerConfig(scoring="likelihood", likelihood="yes_no")
    assert config.method == config.settled().method
    assert profiling_config(RerankerConfig()).scoring == "attention"


@pytest.mark.parametrize(
    ("start", "changes", "end"),
    [
        ({"likelihood": "yes_no"}, {"top_n": 2}, {"likelihood": "yes_no", "top_n": 2}),
        ({"scoring": "mixed", "layers": (1, 2)}, {"scoring": "auto"}, {"layers": (1, 2)}),
        ({"scoring": "likelihood", "likelihood": "yes_no"}, {"scoring": "auto"}, {}),
        ({"scoring": "generation", "window": 3}, {"scoring": "auto"}, {"window": 3}),
        ({"prefer": "speed"}, {"likelihood": "yes_no"}, {"likelihood": "yes_no"}),
        ({"prefer": "speed"}, {"scoring": "mixed"}, {"scoring": "mixed"}),
        ({"prefer": "speed"}, {"top_n": 2}, {"prefer": "speed", "top_n": 2}),
        ({"window": 3}, {"scoring": "likelihood"}, {"scoring": "likelihood"}),
        ({"window": 3}, {"likelihood": "yes_no"}, {"likelihood": "yes_no"}),
        ({"scoring": "likelihood"}, {"scoring": "auto", "prefer": "speed"}, {"prefer": "speed"}),
        ({"layers": (1, 2)}, {"framework": "pairwise"}, {"framework": "pairwise"}),
    ],
)
def test_switching_keeps_what_the_outcome_has_a_use_for(start, changes, end):
    assert RerankerConfig(**start).switched(**changes).changed() == end


def test_a_switch_that_no_scoring_takes_is_refused():
    with pytest.raises(ConfigError, match="means nothing with"):
        RerankerConfig().switched(likelihood="yes_no", layers=(1, 2))
    with pytest.raises(ConfigError, match="prefer='speed' means nothing here"):
        RerankerConfig().switched(likelihood="yes_no", prefer="speed")


def test_doctor_and_rerank_say_which_and_why(ships, model_folder, capsys, tmp_path):
    common = ["--model", model_folder, "--device", "cpu", "--dtype", "float32"]
    assert cli.main(["doctor", *common, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["scoring"], report["scoring_reason"]) == ("mixed", chosen().reason)
    assert cli.main(["doctor", *common, "--scoring", "likelihood"]) == 0
    out = capsys.readouterr().out
    assert "likelihood (as asked for)" in out
    assert "0-4 of 5 (no attention is read)" in out
    assert "icr-rag profile" not in out
    ships()
    assert cli.main(["doctor", *common]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert f"attention ({UNMEASURED})" in out
    assert "`icr-rag profile` makes one with figures; scoring='likelihood' needs none" in out
    (tmp_path / "a.txt").write_text("Tin melts.", encoding="utf-8")
    asked = ["rerank", QUERY, str(tmp_path / "a.txt"), *common, "--format", "json"]
    assert cli.main(asked) == 0
    usage = json.loads(capsys.readouterr().out)["usage"]
    assert (usage["scoring"], usage["scoring_reason"]) == ("attention", UNMEASURED)


def test_every_file_flag_and_variable_takes_it(tmp_path):
    for scoring, prefer in product(["auto"], ["quality", "speed"]):
        path = tmp_path / "s.yaml"
        path.write_text(f"scoring: {scoring}\nprefer: {prefer}\n", encoding="utf-8")
        assert RerankerConfig.from_file(path).prefer == prefer
        named = {"ICR_RAG_SCORING": scoring, "ICR_RAG_PREFER": prefer}
        assert RerankerConfig.from_env(environment=named).prefer == prefer
