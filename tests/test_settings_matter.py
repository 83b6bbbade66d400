"""Every setting changes something, or raises: over the whole table of methods."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model
from torch.nn import functional

from icr_rag import Document, Reranker, RerankerConfig
from icr_rag.calls.embedding_models import Named
from icr_rag.errors import ConfigError
from icr_rag.method import KEPT
from icr_rag.methods import BUILT_IN, SPECIAL
from icr_rag.profiles import Abstention, HeadWeight, Profile, Shape
from icr_rag.profiles.calibration import FEATURES

QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Oaks carry acorns in autumn.",
    "Tin melts at 232 degrees, long before copper.",
    "Lead is soft.",
    "Oaks carry acorns in autumn!",
    "Copper conducts heat well.",
    "The shop opens at nine.",
]
GIVEN = [
    Document(text, metadata={"number": number, "tags": ["a", number]})
    for number, text in enumerate(DOCUMENTS)
]
SCORES = [0.1, 0.9, 0.3, 0.2, 0.8, 0.4]

#: Setting -> another value than the default.
OTHERS = {
    "likelihood": "yes_no", "yes_no_template": "qwen3_reranker", "sort": "bubble",
    "set_size": 2, "sort_top": 1, "layers": (1, 2), "heads": ((1, 0), (2, 1)), "reading": "max",
    "profile": "", "double_query": True, "calibration": "none", "null_query": "nothing at all",
    "token_mask": False, "aggregation": "mean", "order": "given",
    "instruction": "question_answering", "max_document_tokens": 9, "max_query_tokens": 5,
    "window": 3, "stride": 1, "token_budget": 0, "prefill_chunk": 16, "states_memory": 0,
    "states_dir": "", "states_dtype": "int8", "cascade": 3, "cascade_framework": "pointwise",
    "top_n": 2, "score_mode": "rank", "score_threshold": 1e6, "fusion": "rrf",
    "fusion_weight": 0.1, "near_duplicates": 0.5, "min_answerable": 1.0, "deadline_ms": 1e-9,
    "rank_fields": ("number", "tags", "text"), "rank_fields_format": "yaml", "diversity": 1.0,
    "passages": "max", "passage_tokens": 24, "passage_overlap": 12, "prefer": "speed",
    "first_stage_weights": (("scores", 3.0),), "embedder": "a name",
}  # fmt: skip
#: What a setting needs beside it, to mean something at all.
BESIDE = {
    "stride": {"window": 4},
    "rank_fields_format": {"rank_fields": ("number", "tags", "text")},
    "cascade_framework": {"cascade": 3},
    "fusion_weight": {"fusion": "rrf"},
    # Beside scores like these, none is asked.
    "embedder": {"first_stage_weights": (("scores", 0.0),)},
    "passage_tokens": {"passages": "max"},
    "passage_overlap": {"passages": "max", "passage_tokens": 24},
}
#: What makes another value show with these documents, and means nothing without it.
SHOWN_BY = {"passages": {"passage_tokens": 24}}
#: About loading and failures: they have tests of their own, and no ranking shows them.
ELSEWHERE = {
    "model", "revision", "device", "device_map", "dtype", "attn_implementation", "quantization",
    "local_files_only", "cache_dir", "trust_remote_code", "on_error", "traces",
    # The method itself.
    "scoring", "framework", "document_states",
}  # fmt: skip

#: What a reading of heads may leave alone.
READINGS_DECIDE = {"calibration", "null_query", "token_mask", "aggregation"}

CASES = [(row, states) for row in BUILT_IN for states in row.document_states]


def test_every_setting_is_looked_at():
    assert set(OTHERS) | ELSEWHERE == set(RerankerConfig.model_fields)
    assert set(OTHERS) >= SPECIAL


def of_method(row, states):
    variant = {"likelihood": row.variant} if row.variant else {}
    return {"scoring": row.scoring, "framework": row.framework, "document_states": states,
            **variant}  # fmt: skip


def value_of(name, row, states, folder):
    """The other value, made where it is one of a place or of this method."""
    if name == "states_dir":
        return str(folder / "states")
    if name == "likelihood":
        return {"query": "yes_no", "yes_no": "query"}.get(row.variant, "yes_no")
    if name == "token_budget":
        with Reranker.from_model(
            tiny_model("llama"), byte_tokenizer(), **of_method(row, states)
        ) as r:
            prompts, together = r.scorer.prompts, r.scorer.together
            around = prompts.overhead(prompts.encode_query(QUERY))
            return around + together * (prompts.document_cost([], 6) + 20)
    if name != "profile":
        return OTHERS[name]
    path = folder / "profile.json"
    if row.scoring == "likelihood" and row.explained:
        basis = basis_of(row, states)
        weights = dict.fromkeys(FEATURES, 1.0)
        Profile(
            scoring="likelihood", framework="pointwise", likelihood=row.variant, model="tiny",
            shape=Shape.of(tiny_model("llama").config),
            abstention=Abstention(intercept=0.0, weights=weights, basis=basis),
        ).save(path)  # fmt: skip
        return str(path)
    Profile(
        scoring="mixed" if row.scoring == "mixed" else "attention",
        framework="pointwise" if row.scoring == "mixed" else row.framework
        if row.reads_attention else "listwise",
        document_states=states if row.framework == "listwise" else "joint",
        model="tiny",
        shape=Shape.of(tiny_model("llama").config),
        heads=(HeadWeight(layer=3, head=1, reading="max", weight=-1.0),),
    ).save(path)  # fmt: skip
    return str(path)


def outcome(fields):
    """What a reranker with these settings shows, once cold and once warm."""
    passes = []
    embedding = functional.embedding

    def counted(ids, *arguments):
        passes.append(ids.shape)
        return embedding(ids, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        # Every forward pass begins so.
        patch.setattr(functional, "embedding", counted)
        with Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields) as reranker:
            shown = [len(passes)]
            for _ in range(2):
                ranking = reranker.rank(QUERY, GIVEN, retrieval_scores=SCORES)
                usage = ranking.usage
                shown += [
                    [hit.index for hit in ranking], ranking.scores, usage.tokens, usage.windows,
                    usage.calls, usage.generated_tokens, usage.truncated, usage.query_truncated,
                    usage.states_evicted, len(passes), ranking.answerable,
                ]  # fmt: skip
    folder = fields.get("states_dir")
    return [*shown, folder is not None and any(Path(folder).rglob("*.safetensors"))]


def basis_of(row, states):
    fields = {**of_method(row, states), "score_mode": "explained"}
    with Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields) as reranker:
        return reranker.scorer.basis()


def check_min_answerable(row, states, folder):
    """It leaves out what nothing answers, by weights that a profile must have."""
    method = {**of_method(row, states), "score_mode": "explained"}
    with pytest.raises(ConfigError, match=r"min_answerable=1.0 needs abstention"):
        outcome({**method, "min_answerable": 1.0})
    path = value_of("profile", row, states, folder)
    if row.reads_attention:
        fields = {**method, "profile": path}
        with Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields) as reranker:
            basis = reranker.scorer.basis()
        weights = dict.fromkeys(FEATURES, 1.0)
        weighed = Abstention(intercept=0.0, weights=weights, basis=basis)
        Profile.load(path).model_copy(update={"abstention": weighed}).save(path)
    kept = outcome({**method, "profile": path})
    assert kept[1]
    assert not outcome({**method, "profile": path, "min_answerable": 1.0})[1]


@functools.cache
def plain(row, states, beside):
    return outcome({**of_method(row, states), **dict(beside)})


class Lengths:
    """Embeds nothing but how long texts are."""

    def encode(self, texts):
        return [[len(text), 50.0] for text in texts]


def refusal(row, states, fields, beside):
    """Why these settings are refused, when they are made or when the model is known."""
    try:
        RerankerConfig(**{**of_method(row, states), **beside})
        with Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields) as reranker:
            assert reranker.scorer.layers is not None
    except ConfigError as error:
        return str(error)
    return None


@pytest.mark.parametrize(("row", "states"), CASES, ids=lambda x: getattr(x, "label", x))
def test_a_setting_changes_something_or_raises(row, states, tmp_path, monkeypatch):
    monkeypatch.setattr(Named, "load", lambda named: Lengths())
    for number, name in enumerate(OTHERS):
        folder = tmp_path / str(number)
        folder.mkdir()
        beside = BESIDE.get(name, {})
        if name == "prefill_chunk" and row.framework == "setwise":
            # So that there are several sets at a time.
            beside = {"set_size": 2}
        if name == "profile" and row.scoring == "likelihood" and row.explained:
            # There are no heads that it could say, but what absolute scores mean.
            beside = {"score_mode": "explained"}
        if name == "min_answerable" and row.explained:
            check_min_answerable(row, states, folder)
            continue
        fields = {**of_method(row, states), **beside, **SHOWN_BY.get(name, {}),
                  name: value_of(name, row, states, folder)}  # fmt: skip
        refused = refusal(row, states, fields, beside)
        if refused is not None:
            # What the table says means something is refused only beside what makes it useless.
            assert name in refused or beside, f"{row.label}: {name}: {refused}"
            idle = name in READINGS_DECIDE and "means nothing here" in refused
            useless = idle or (states == "joint" and name in KEPT)
            # One is for absolute scores; the other for a choice, see tests/test_auto.py.
            useless = useless or name in ("min_answerable", "prefer")
            assert name == "likelihood" or not row.uses(name) or useless, refused
            continue
        changed = outcome(fields)
        assert row.uses(name), f"{row.label} does without {name}, which was taken"
        if name == "likelihood":
            continue
        assert changed != plain(row, states, tuple(beside.items())), f"{row.label}: {name}"


@pytest.mark.parametrize(("row", "states"), CASES, ids=lambda x: getattr(x, "label", x))
def test_absolute_scores_are_others_or_refused(row, states, tmp_path):
    fields = {**of_method(row, states), "score_mode": "probability"}
    needs = "needs calibration" if row.explained else "score_mode='probability' does not go with"
    assert needs in str(refusal(row, states, fields, {}))
    fields = {**of_method(row, states), "score_mode": "explained"}
    refused = refusal(row, states, fields, {})
    assert (refused is None) == bool(row.explained)
    if refused is None:
        assert outcome(fields) != plain(row, states, ())
    else:
        assert "score_mode='explained' does not go with" in refused


#: Settings that were once accepted and ignored.
MEANINGLESS = [
    {"scoring": "likelihood", "layers": (1, 2)},
    {"scoring": "likelihood", "heads": ((1, 2),)},
    {"scoring": "likelihood", "profile": "/nope.json"},
    {"scoring": "likelihood", "token_mask": False},
    {"scoring": "likelihood", "reading": "lift"},
    {"scoring": "likelihood", "calibration": "none"},
    {"scoring": "likelihood", "null_query": "nothing"},
    {"scoring": "likelihood", "aggregation": "mean"},
    {"scoring": "likelihood", "set_size": 5},
    {"scoring": "likelihood", "sort": "bubble"},
    {"scoring": "likelihood", "sort_top": 5},
    {"scoring": "likelihood", "yes_no_template": "qwen3_reranker"},
    {"scoring": "likelihood", "framework": "listwise", "likelihood": "yes_no"},
    {"scoring": "generation", "layers": "all"},
    {"scoring": "generation", "likelihood": "yes_no"},
    {"scoring": "generation", "framework": "listwise", "yes_no_template": "qwen3_reranker"},
    {"scoring": "mixed", "aggregation": "mean"},
    {"scoring": "mixed", "token_mask": False},
    {"scoring": "mixed", "calibration": "none"},
    {"framework": "pointwise", "aggregation": "mean"},
    {"framework": "pointwise", "sort": "bubble"},
    {"framework": "listwise", "set_size": 5},
    {"framework": "listwise", "sort_top": 5},
    {"framework": "listwise", "likelihood": "yes_no"},
    {"framework": "setwise", "window": 5},
    {"scoring": "likelihood", "framework": "pairwise", "set_size": 5},
    {"scoring": "likelihood", "framework": "pairwise", "sort": "all_pairs", "sort_top": 3},
    {"document_states": "independent", "framework": "listwise", "prefill_chunk": 64},
    {"document_states": "independent", "framework": "listwise", "order": "given"},
    {"reading": "log_mass", "token_mask": False},
    {"reading": "log_mass", "null_query": "nothing"},
    {"reading": "max", "aggregation": "mean"},
    {"reading": "lift", "score_mode": "lift"},
    {"score_mode": "lift", "aggregation": "mean"},
    {"calibration": "none", "null_query": "nothing"},
    {"layers": "all", "heads": ((1, 2),)},
    {"fusion_weight": 0.3},
    {"fusion": "prior", "fusion_weight": 0.3},
    {"fusion": "none", "embedder": "a name"},
    {"fusion": "rrf", "first_stage_weights": {"order": 1}},
    {"score_mode": "lift", "first_stage_weights": {"order": 1}},
    {"scoring": "likelihood", "score_mode": "explained", "embedder": "a name"},
    {"min_answerable": 0.5},
    {"min_answerable": 0.5, "score_mode": "lift"},
    {"scoring": "likelihood", "profile": "/nope.json", "score_mode": "rank"},
    {"passage_tokens": 100},
    {"passage_overlap": 10},
    {"passages": "max", "max_document_tokens": 100},
    {"prefer": "speed", "scoring": "attention"},
    {"prefer": "speed", "likelihood": "yes_no"},
    {"prefer": "speed", "window": 3},
]


@pytest.mark.parametrize("fields", MEANINGLESS, ids=str)
def test_what_means_nothing_is_refused_with_the_way_out(fields):
    with pytest.raises(ConfigError) as caught:
        RerankerConfig(**fields)
    message = str(caught.value)
    assert any(f"{name}=" in message for name in fields)
    assert "leave it out" in message or "leave out" in message


@settings(max_examples=25)
@given(
    st.sampled_from(CASES),
    st.lists(st.sampled_from(sorted(SPECIAL - {"profile", "states_dir"})), max_size=4),
)
def test_switching_to_another_method_leaves_nothing_meaningless(case, names):
    """`switched` gives a configuration that is taken, whatever was set before."""
    fields = {name: OTHERS[name] for name in names}
    for start, states in CASES:
        try:
            config = RerankerConfig(**{**of_method(start, states), **fields})
        except ConfigError:
            continue
        row, other = case
        changes = {**of_method(row, other), "reading": "auto", "score_mode": "raw"}
        switched = config.switched(**changes)
        assert switched.method == row


def test_a_profile_is_checked_when_it_is_known(tmp_path):
    shape = Shape.of(tiny_model("llama").config)
    path = tmp_path / "p.json"
    Profile(model="t", shape=shape, framework="pointwise", layers=(1, 2)).save(path)
    for field, value in (("window", 3), ("aggregation", "mean"), ("order", "given")):
        ranker = Reranker.from_model(
            tiny_model("llama"), byte_tokenizer(), profile=str(path), **{field: value}
        )
        with pytest.raises(ConfigError, match=f"{field}=.* means nothing with"):
            ranker.rank(QUERY, DOCUMENTS)
    weights = (HeadWeight(layer=1, head=1, reading="log_mass"),)
    Profile(model="t", shape=shape, heads=weights).save(path)
    for field, value in (("token_mask", False), ("calibration", "none"), ("null_query", "no")):
        ranker = Reranker.from_model(
            tiny_model("llama"), byte_tokenizer(), profile=str(path), **{field: value}
        )
        with pytest.raises(ConfigError, match=f"{field}=.* means nothing here"):
            ranker.rank(QUERY, DOCUMENTS)
