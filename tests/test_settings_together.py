"""Settings that come from two places are checked together; methods are switched on one model."""

from __future__ import annotations

import pytest
from beir import write_beir
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig, cli
from icr_rag.arguments import check_retrieval_scores
from icr_rag.cli.options import config_from_options
from icr_rag.errors import ConfigError, InputError
from icr_rag.frameworks.combine import combine, prior
from icr_rag.frameworks.result import WindowedScores
from icr_rag.methods import Method

QUERY = "Which metal melts first?"
TEXTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat.", "Gold.", "Zinc."]


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


# --- two places ----------------------------------------------------------------------------------


@pytest.fixture
def sets(tmp_path):
    """A file with a setting of setwise, and nothing that says setwise."""
    path = tmp_path / "s.yaml"
    path.write_text("set_size: 6\n", encoding="utf-8")
    return path


def test_a_file_and_flags_are_checked_together(sets):
    assert config_from_options(sets, framework="setwise").set_size == 6
    with pytest.raises(ConfigError, match="set_size=6 means nothing"):
        config_from_options(sets)


def test_a_file_and_an_adapters_keywords_are_checked_together(sets, monkeypatch):
    pytest.importorskip("llama_index.core")
    pytest.importorskip("langchain_core")
    from icr_rag.integrations import langchain, llama_index

    for adapter in (langchain.ICRRerank, llama_index.ICRRerank):
        made = adapter.from_config(sets, framework="setwise", top_n=2)
        assert (made.config.set_size, made.config.framework) == (6, "setwise")
        assert made.top_n == 2
        assert adapter(config={"set_size": 6}, framework="setwise").config.set_size == 6
        monkeypatch.setenv("ICR_RAG_SET_SIZE", "5")
        assert adapter.from_env(framework="setwise").config.set_size == 5
        monkeypatch.delenv("ICR_RAG_SET_SIZE")


def test_settings_on_a_loaded_llm_are_checked_together():
    pytest.importorskip("llama_index.core")
    from icr_rag.integrations.llama_index import ICRRerank

    made = ICRRerank.from_llm(
        tiny_model("llama"),
        tokenizer=byte_tokenizer(),
        config={"set_size": 6},
        framework="setwise",
    )
    assert (made.config.set_size, made.config.framework) == (6, "setwise")


def test_a_grid_and_flags_are_checked_together(tmp_path, model_folder):
    pytest.importorskip("matplotlib")
    write_beir(tmp_path / "data" / "tiny")
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        f"data: [tiny]\ndepths: [3]\nreranker: {{model: {model_folder}, sort: bubble}}\n"
        "systems:\n  sets: {framework: setwise, layers: [1, 2]}\npeers: [bm25]\n",
        encoding="utf-8",
    )
    out = tmp_path / "out"
    arguments = ["evaluate", grid, "--data", tmp_path / "data", "--out", out, "--set-size", 3]
    # A peer looks at nothing that is a method's.
    assert cli.main([*map(str, arguments)]) == 0
    assert (out / "report.md").is_file()


# --- another method --------------------------------------------------------------------------


def test_a_reranker_is_switched_on_the_same_weights():
    first = tiny(layers=(1, 2), framework="listwise", window=4)
    with pytest.raises(ConfigError, match="`switched` changes the method"):
        first.with_config(scoring="likelihood")
    other = first.switched(scoring="likelihood")
    assert other.config.changed().keys() == {"model", "scoring", "framework", "window"}
    assert len(other.rank(QUERY, TEXTS)) == 5
    assert other.engine is first.engine
    # The name that it has already is no wish for other weights.
    assert first.with_config(model=first.config.model).engine is first.engine


@pytest.mark.parametrize(
    ("settings", "changes"),
    [
        ({"document_states": "independent", "states_memory": 5}, {"scoring": "generation"}),
        ({"document_states": "blind", "framework": "listwise"}, {"framework": "pointwise"}),
        ({"framework": "setwise", "set_size": 5}, {"scoring": "mixed"}),
        ({"scoring": "likelihood", "framework": "pairwise", "sort": "all_pairs"},
         {"framework": "setwise"}),
        ({"score_mode": "lift"}, {"scoring": "generation"}),
        ({"fusion": "rrf", "fusion_weight": 0.2}, {"fusion": "none"}),
    ],
)  # fmt: skip
def test_what_is_left_of_another_method_is_dropped(settings, changes):
    switched = RerankerConfig(**settings).switched(**changes)
    assert {name: getattr(switched, name) for name in changes} == changes


@pytest.mark.parametrize(
    "settings",
    [
        {"scoring": "likelihood", "layers": (1, 2)},
        {"scoring": "mixed", "aggregation": "mean"},
        {"framework": "listwise", "prefill_chunk": 9},
        {"framework": "pointwise", "order": "given"},
        {"framework": "pointwise", "reading": "log_mass", "token_mask": False},
    ],
    ids=str,
)
def test_settings_of_a_second_reading_can_be_set(settings):
    kept = {"document_states": "independent", "cascade": 3, **settings}
    plain = {name: settings[name] for name in ("scoring", "framework", "reading")
             if name in settings}  # fmt: skip
    ranker = tiny(**kept)
    found = ranker.rank(QUERY, TEXTS)
    assert len(found) == 5
    without = tiny(document_states="independent", cascade=3, **plain)
    if "prefill_chunk" not in settings:
        assert found.scores != without.rank(QUERY, TEXTS).scores
    with pytest.raises(ConfigError):
        RerankerConfig(**{**kept, "cascade": None})


# --- the first stage's scores ---------------------------------------------------------------------


def test_a_log_ratio_stays_one():
    plain = tiny(layers=(1, 2), score_mode="lift")
    scores = [0.1, 0.2, 0.3, 0.4, 0.5]
    found = plain.rank(QUERY, TEXTS, retrieval_scores=scores)
    assert found.scores == plain.rank(QUERY, TEXTS).scores
    # Who asks for a fusion by name gets it.
    fused = tiny(layers=(1, 2), score_mode="lift", fusion="prior")
    assert fused.rank(QUERY, TEXTS, retrieval_scores=scores).scores != found.scores


@pytest.mark.parametrize("nothing", [None, float("nan")])
def test_where_a_score_lacks_fusions_by_name_have_none(nothing):
    scores = [1.0, nothing, 3.0, 2.0, 1.0]
    for fusion in ("prior", "rrf"):
        plain = tiny(layers=(1, 2), fusion=fusion)
        found = plain.rank(QUERY, TEXTS, retrieval_scores=scores)
        assert found.scores == plain.rank(QUERY, TEXTS).scores
    weighted = tiny(layers=(1, 2), fusion="weighted")
    with pytest.raises(InputError, match=r"retrieval_scores\[1\]"):
        weighted.rank(QUERY, TEXTS, retrieval_scores=scores)
    with pytest.raises(InputError, match="set fusion='none'"):
        check_retrieval_scores([1.0, float("inf")], 2, may_lack_some=True)


def test_pandas_missing_value_is_one_too():
    pandas = pytest.importorskip("pandas")
    assert check_retrieval_scores([1.0, pandas.NA], 2, may_lack_some=True) is None


def test_scores_that_are_equal_favour_nobody():
    ranked = WindowedScores([2, 1, 0], [0.0, 1.0, 2.0], [0] * 3)
    assert combine(ranked, prior(0.5, [7.0] * 3)).order == [2, 1, 0]
    some = combine(ranked, prior(0.5, [7.0, 7.0, 1.0]))
    turned = WindowedScores([2, 0, 1], [1.0, 0.0, 2.0], [0] * 3)
    other = combine(turned, prior(0.5, [7.0, 7.0, 1.0]))
    assert some.scores == [other.scores[1], other.scores[0], other.scores[2]]


def test_many_rankings_tell_what_had_to_go():
    ranker = tiny(document_states="independent", framework="listwise", states_memory=0)
    assert ranker.rank(QUERY, TEXTS).usage.states_evicted == 5
    many = ranker.rank_many([QUERY, "What is soft?"], [TEXTS, TEXTS])
    assert sum(ranking.usage.states_evicted for ranking in many) == 5


# --- rows that cannot be -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": ["layers"]},
        {"scorer": None},
        {"scoring": ["a"]},
        {"scoring": ""},
        {"document_states": None},
        {"document_states": "joint"},
        {"variant": "foo"},
    ],
    ids=str,
)
def test_a_row_says_what_is_wrong_with_it(changes):
    fields = {"scoring": "a", "framework": "pointwise", "scorer": "a:B", "compares": "", "cost": ""}
    Method(**fields)
    with pytest.raises(ConfigError, match=next(iter(changes))):
        Method(**{**fields, **changes})
