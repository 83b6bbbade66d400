"""Which way of scoring goes with which framework and sort, and which settings they have."""

from __future__ import annotations

import re
import subprocess
import sys
import typing

import pytest
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig
from icr_rag.errors import ConfigError
from icr_rag.methods import SORTS, frameworks_of, methods, resolve_framework, scorings


def allowed(name):
    """The values that a setting's type lists."""
    return typing.get_args(RerankerConfig.model_fields[name].annotation)


FRAMEWORKS = {scoring: frameworks_of(scoring) for scoring in scorings()}
EVERY_PAIR = [
    (scoring, framework)
    for scoring in FRAMEWORKS
    for framework in allowed("framework")
    if framework != "auto"
]
VALID = {(scoring, framework) for scoring, with_ in FRAMEWORKS.items() for framework in with_}
QUERY = "Which metal melts first?"
DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat well."]


def test_the_table_has_the_values_that_settings_have():
    assert RerankerConfig.json_schema()["properties"]["scoring"]["enum"] == ["auto", *FRAMEWORKS]
    assert set(EVERY_PAIR) >= VALID
    assert {framework for _, framework in VALID} == set(allowed("framework")) - {"auto"}
    assert set().union(*SORTS.values()) == set(allowed("sort"))


@pytest.mark.parametrize(("scoring", "framework"), EVERY_PAIR)
def test_every_pair_ranks_or_says_which_do(scoring, framework):
    if (scoring, framework) not in VALID:
        with pytest.raises(ConfigError) as caught:
            RerankerConfig(scoring=scoring, framework=framework)
        message = str(caught.value)
        assert f"scoring={scoring!r} does not go with framework={framework!r}" in message
        listed = message.partition("allowed are ")[2]
        found = {
            (name, other)
            for name, others in re.findall(r"(\w+): ([\w, ]+)", listed)
            for other in others.split(", ")
        }
        assert found == VALID
        return
    reranker = Reranker.from_model(
        tiny_model("llama"), byte_tokenizer(), scoring=scoring, framework=framework
    )
    assert reranker.scorer.framework == framework
    ranking = reranker.rank(QUERY, DOCUMENTS)
    assert sorted(hit.index for hit in ranking) == [0, 1, 2]
    assert ranking.usage.calls > 0
    assert (ranking.usage.generated_tokens > 0) == (scoring == "generation")
    assert bool(ranking.usage.layers) == (scoring in ("attention", "mixed"))


@pytest.mark.parametrize("scoring", sorted(FRAMEWORKS))
def test_auto_is_the_first_of_the_table(scoring):
    assert resolve_framework(scoring, "auto") == FRAMEWORKS[scoring][0]
    reranker = Reranker.from_model(tiny_model("llama"), byte_tokenizer(), scoring=scoring)
    assert reranker.scorer.framework == FRAMEWORKS[scoring][0]


def test_auto_is_what_the_setting_says():
    said = RerankerConfig.model_fields["framework"].description
    for scoring, with_ in FRAMEWORKS.items():
        clause = next(part for part in re.split(r"[:,]", said) if scoring in part)
        assert with_[0] in clause, scoring


@pytest.mark.parametrize("framework", sorted({framework for _, framework in VALID}))
@pytest.mark.parametrize("sort", allowed("sort"))
def test_sorts_go_with_their_frameworks(framework, sort):
    scoring = next(scoring for scoring, other in sorted(VALID) if other == framework)
    settings = {"scoring": scoring, "framework": framework, "sort": sort}
    if framework in SORTS and sort not in SORTS[framework]:
        with pytest.raises(ConfigError) as caught:
            RerankerConfig(**settings)
        message = str(caught.value)
        assert f"sort={sort!r} does not go with framework={framework!r}" in message
        assert message.endswith("allowed are " + ", ".join(SORTS[framework]))
    elif framework in SORTS or sort == "heap":
        assert RerankerConfig(**settings).sort == sort
    else:
        with pytest.raises(ConfigError, match=f"sort='{sort}' means nothing with"):
            RerankerConfig(**settings)


#: Setting -> (a value that is not the default, the ways of scoring that it means something for).
JOINT = {("attention", "listwise"), ("attention", "setwise")}
LISTWISE = {pair for pair in VALID if pair[1] == "listwise"}
MEANT_FOR = {
    "instruction": ("Name the metal that melts first.", set(VALID)),
    "double_query": (True, JOINT),
    "order": ("given", JOINT),
    "window": (4, LISTWISE),
    "stride": (2, LISTWISE),
    "score_mode": ("lift", {("attention", "listwise")}),
}


@pytest.mark.parametrize(("scoring", "framework"), sorted(VALID))
@pytest.mark.parametrize("name", MEANT_FOR)
def test_settings_that_mean_nothing_raise(name, scoring, framework):
    value, meant_for = MEANT_FOR[name]
    settings = {"scoring": scoring, "framework": framework, name: value}
    if (scoring, framework) in meant_for:
        assert getattr(RerankerConfig(**settings), name) == value
        return
    with pytest.raises(ConfigError) as caught:
        RerankerConfig(**settings)
    message = str(caught.value)
    assert f"{name}={value!r}" in message
    if name == "score_mode":
        assert "scoring='attention' and framework='listwise' only" in message
    else:
        assert f"means nothing with scoring={scoring!r} and framework={framework!r}" in message
        assert message.endswith("leave it out")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"reading": "lift", "calibration": "none"}, "calibration='null'"),
        ({"score_mode": "lift", "calibration": "none"}, "calibration='null'"),
        ({"profile": "p.json", "layers": (1, 2)}, "so do layers; set one or the other"),
        ({"profile": "p.json", "heads": ((1, 2),)}, "so do heads; set one or the other"),
        ({"profile": "p.json", "reading": "lift"}, "so do reading; set one or the other"),
        ({"heads": ((5, 0),), "layers": (1, 2)}, "lie outside layers=(1, 2)"),
        ({"set_size": 1}, "set_size=1"),
        ({"set_size": 27}, "set_size=27"),
        ({"sort_top": 0}, "sort_top=0"),
        ({"scoring": "vibes"}, "'attention', 'likelihood', 'generation' or 'mixed'"),
        ({"framework": "tournament"}, "'pointwise', 'pairwise', 'listwise' or 'setwise'"),
        ({"reading": "mass"}, "'calibrated', 'lift', 'log_mass' or 'max'"),
    ],
)
def test_settings_that_contradict_each_other_or_are_none(settings, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        RerankerConfig(**settings)


def test_attention_alone_needs_no_lm_head():
    assert {row.scoring for row in methods() if not row.needs_lm_head} == {"attention"}


def test_settings_are_checked_without_torch():
    code = (
        "import sys; from icr_rag import RerankerConfig; "
        "RerankerConfig(scoring='generation', framework='setwise'); "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
