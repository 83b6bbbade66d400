"""Maximal marginal relevance: against the formula written out, and what it leaves alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig, cli
from icr_rag.diversity import diversified
from icr_rag.duplicates import near_duplicates, shingles
from icr_rag.errors import ConfigError
from icr_rag.methods import BUILT_IN

QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Tin melts at 232 degrees, long before copper does.",
    "Tin melts at 232 degrees, long before copper did.",
    "Tin melts at 232 degrees, long before copper.",
    "",
    "Lead is soft.",
    "Tin melts at 232 degrees, long before copper does.",
    "Oaks carry acorns in autumn.",
    "Oaks carry acorns in autumn!",
]
LIKELIHOOD = {"scoring": "likelihood"}


def tiny(**fields):
    return Reranker.from_model(tiny_model("llama"), byte_tokenizer(), **fields)


def jaccard(a, b):
    a, b = shingles(a), shingles(b)
    return len(a & b) / len(a | b) if a | b else 0.0


def slow(relevance, texts, weight, top_n=None):
    """The formula as it is written, over plain lists."""
    least, most = min(relevance, default=0.0), max(relevance, default=0.0)
    scaled = [(r - least) / (most - least) if most > least else 0.0 for r in relevance]
    chosen, left = [], list(range(len(texts)))
    while left and (top_n is None or len(chosen) < top_n):

        def marginal(i):
            nearest = max((jaccard(texts[i], texts[j]) for j in chosen), default=0.0)
            return (1 - weight) * scaled[i] - weight * nearest

        best = max(left, key=lambda i: (marginal(i), -i))
        chosen.append(best)
        left.remove(best)
    return chosen + left


#: Sixteenths, so that sums are exact and ties are ties in both.
RELEVANCE = st.lists(st.integers(-16, 16).map(lambda n: n / 16), max_size=9)
TEXT = st.text("ab cdé", max_size=12)


@settings(max_examples=200, deadline=None)
@given(st.data(), RELEVANCE, st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_it_is_the_formula(data, relevance, weight):
    relevance = sorted(relevance, reverse=True)
    texts = data.draw(st.lists(TEXT, min_size=len(relevance), max_size=len(relevance)))
    top_n = data.draw(st.none() | st.integers(0, 10))
    found = diversified(relevance, texts, weight, top_n)
    assert found == slow(relevance, texts, weight, top_n)
    assert sorted(found) == list(range(len(texts)))
    # Places that are not asked for change none of those that are.
    whole = diversified(relevance, texts, weight)
    if top_n is not None:
        assert found[:top_n] == whole[:top_n]


@settings(max_examples=50, deadline=None)
@given(RELEVANCE, st.data(), st.integers(-3, 3), st.sampled_from([0.5, 2.0, 1024.0]))
def test_units_do_not_matter(relevance, data, shift, scale):
    relevance = sorted(relevance, reverse=True)
    texts = data.draw(st.lists(TEXT, min_size=len(relevance), max_size=len(relevance)))
    other = [scale * value + shift for value in relevance]
    assert diversified(other, texts, 0.5) == diversified(relevance, texts, 0.5)


@settings(max_examples=50, deadline=None)
@given(RELEVANCE, st.data())
def test_towards_no_weight_it_is_the_order_of_relevance(relevance, data):
    relevance = sorted(set(relevance), reverse=True)
    texts = data.draw(st.lists(TEXT, min_size=len(relevance), max_size=len(relevance)))
    assert diversified(relevance, texts, 1e-9) == list(range(len(texts)))


def test_similarity_is_that_of_near_duplicates():
    a, b = "Tin melts first.", "TIN  melts  first!"
    found = jaccard(a, b)
    assert near_duplicates([a, b], found) == {1: 0}
    assert near_duplicates([a, b], found + 1e-9) == {}
    # What repeats the best goes behind what does not as soon as it weighs as much as relevance.
    even = found / (1 + found)
    assert diversified([1.0, 1.0, 0.0], [a, b, "zzzzzzz"], even - 0.4)[1] == 1
    assert diversified([1.0, 1.0, 0.0], [a, b, "zzzzzzz"], even + 0.4)[1] == 2


def test_numbers_at_the_ends_of_floats():
    assert diversified([1e308, -1e308, -1e308], ["aaaaaa", "aaaaaa", "b"], 0.5) == [0, 2, 1]
    assert diversified([], [], 0.5) == []
    assert diversified([2.0], ["a"], 1.0) == [0]


def test_a_thousand_documents_cost_places_times_texts(monkeypatch):
    from icr_rag import diversity

    asked = []
    plain = diversity._Similarities.to

    def counted(self, text):
        asked.append(text)
        return plain(self, text)

    monkeypatch.setattr(diversity._Similarities, "to", counted)
    texts = [f"{n} " + "abcdefgh"[n % 8] * (n % 50) for n in range(1200)]
    diversified([float(-n) for n in range(1200)], texts, 0.5, 10)
    assert len(asked) == 9


# --- through the reranker -----------------------------------------------------------------------


@pytest.mark.parametrize("row", BUILT_IN, ids=lambda row: row.label)
def test_every_method_takes_it_and_keeps_its_scores(row):
    fields = {"scoring": row.scoring, "framework": row.framework,
              "document_states": row.document_states[0],
              **({"likelihood": row.variant} if row.variant else {})}  # fmt: skip
    plain = tiny(**fields).rank(QUERY, DOCUMENTS)
    found = tiny(**fields, diversity=0.6).rank(QUERY, DOCUMENTS)
    assert found.scores == plain.scores
    assert found.score_groups == plain.score_groups
    order = [hit.index for hit in plain]
    read = [i for i in order if plain.score_groups[i] >= 0]
    wanted = slow([plain.scores[i] for i in read], [DOCUMENTS[i] for i in read], 0.6)
    assert [hit.index for hit in found] == [*(read[place] for place in wanted), 3]
    assert [hit.score for hit in found] == [plain.scores[hit.index] for hit in found]


@pytest.mark.parametrize("mode", ["raw", "share", "explained", "lift"])
def test_the_unit_of_scores_does_not_matter(mode):
    fields = {"framework": "listwise", "layers": (1, 2)} if mode == "lift" else LIKELIHOOD
    plain = tiny(**fields, score_mode=mode).rank(QUERY, DOCUMENTS)
    found = tiny(**fields, score_mode=mode, diversity=0.6).rank(QUERY, DOCUMENTS)
    assert found.scores == plain.scores
    if mode != "lift":
        raw = tiny(**fields, diversity=0.6).rank(QUERY, DOCUMENTS)
        assert [hit.index for hit in found] == [hit.index for hit in raw]


def test_thresholds_and_repetitions_come_before_it():
    plain = tiny(**LIKELIHOOD, near_duplicates=0.99).rank(QUERY, DOCUMENTS)
    kept = [hit.index for hit in plain]
    least = plain[-3].score
    found = tiny(**LIKELIHOOD, near_duplicates=0.99, score_threshold=least, diversity=1.0)
    ranking = found.rank(QUERY, DOCUMENTS)
    assert sorted(hit.index for hit in ranking) == sorted(kept[:-2])
    assert dict(ranking.duplicates) == dict(plain.duplicates)
    assert ranking[0].index == kept[0]


def test_top_n_is_the_beginning_of_the_whole_order():
    ranker = tiny(**LIKELIHOOD, diversity=0.7)
    whole = [hit.index for hit in ranker.rank(QUERY, DOCUMENTS)]
    for top_n in range(len(DOCUMENTS) + 2):
        assert [hit.index for hit in ranker.rank(QUERY, DOCUMENTS, top_n)] == whole[:top_n]
    assert whole != [hit.index for hit in tiny(**LIKELIHOOD).rank(QUERY, DOCUMENTS)]


def test_a_cascade_is_spread_when_both_readings_are_done():
    fields = {**LIKELIHOOD, "document_states": "independent", "cascade": 3}
    plain = tiny(**fields).rank(QUERY, DOCUMENTS)
    found = tiny(**fields, diversity=0.9).rank(QUERY, DOCUMENTS)
    assert found.scores == plain.scores
    assert found[0].index == plain[0].index
    many = tiny(**fields, diversity=0.9).rank_many([QUERY], [DOCUMENTS])
    assert [hit.index for hit in many[0]] == [hit.index for hit in found]


def test_what_is_let_through_keeps_its_order():
    ranker = tiny(**LIKELIHOOD, diversity=0.9, on_error="passthrough")
    ranking = ranker.rank(" ", DOCUMENTS)
    assert ranking.error is not None
    assert [hit.index for hit in ranking] == list(range(len(DOCUMENTS)))
    assert [hit.index for hit in ranker.rank(QUERY, ["", " "])] == [0, 1]


def test_a_place_as_score_is_refused():
    with pytest.raises(ConfigError, match=r"score_mode='rank'.*diversity=0\.5"):
        RerankerConfig(score_mode="rank", diversity=0.5)
    for wrong in (0, -0.1, 1.1, float("nan")):
        with pytest.raises(ConfigError, match="diversity"):
            RerankerConfig(diversity=wrong)


# --- through the adapters -------------------------------------------------------------------------

FIELDS = {**LIKELIHOOD, "diversity": 0.7}


@pytest.fixture
def order():
    """What the reranker says, which is not the order of its scores."""
    ranking = tiny(**FIELDS).rank(QUERY, DOCUMENTS)
    scores = [hit.score for hit in ranking]
    assert scores != sorted(scores, reverse=True)
    return [hit.index for hit in ranking]


def test_langchain_and_llama_index_keep_the_order(order):
    langchain = pytest.importorskip("langchain_core.documents")
    schema = pytest.importorskip("llama_index.core.schema")
    from icr_rag.integrations import langchain as of_langchain
    from icr_rag.integrations import llama_index

    given = [langchain.Document(text, metadata={"n": n}) for n, text in enumerate(DOCUMENTS)]
    found = of_langchain.ICRRerank(tiny(**FIELDS)).compress_documents(given, QUERY)
    assert [document.metadata["n"] for document in found] == order
    nodes = [
        schema.NodeWithScore(node=schema.TextNode(text=text, id_=str(n)))
        for n, text in enumerate(DOCUMENTS)
    ]
    for top_n in (None, 0, 2, 5, 8):
        adapter = llama_index.ICRRerank(tiny(**FIELDS), top_n=top_n)
        kept = adapter.postprocess_nodes(nodes, query_str=QUERY)
        assert [int(own.node.node_id) for own in kept] == order[:top_n]


def test_those_that_sort_by_score_get_the_order(order):
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyterrier")
    from icr_rag.integrations import pyterrier

    frame = pandas.DataFrame(
        {"qid": "1", "query": QUERY, "docno": [str(n) for n in range(8)], "text": DOCUMENTS}
    )
    found = pyterrier.ICRRanker(tiny(**FIELDS)).transform(frame)
    by_score = found.sort_values("score", ascending=False, kind="stable")
    assert [int(name) for name in by_score["docno"]] == order
    scores = tiny(**FIELDS).rank(QUERY, DOCUMENTS).scores
    assert list(found["relevance_score"]) == [scores[n] for n in order]


def test_rerankers_and_haystack_keep_the_order(order):
    pytest.importorskip("rerankers")
    haystack = pytest.importorskip("haystack")
    from icr_rag.integrations import haystack as of_haystack
    from icr_rag.integrations import rerankers

    results = rerankers.ICRRanker(reranker=tiny(**FIELDS)).rank(QUERY, DOCUMENTS)
    assert [result.document.doc_id for result in results.top_k(8)] == order
    given = [haystack.Document(id=str(n), content=text) for n, text in enumerate(DOCUMENTS)]
    ranker = of_haystack.ICRRanker(tiny(**FIELDS), top_k=None)
    assert [int(own.id) for own in ranker.run(QUERY, given)["documents"]] == order


def test_the_command_line_writes_the_order(order, tmp_path, model_folder, capsys):
    path = tmp_path / "documents.jsonl"
    lines = [json.dumps({"id": str(n), "text": text}) for n, text in enumerate(DOCUMENTS)]
    path.write_text("\n".join(lines))
    asked = ["rerank", QUERY, str(path), "--model", model_folder, "--scoring", "likelihood",
             "--dtype", "float32", "--diversity", "0.7", "--format", "trec"]  # fmt: skip
    assert cli.main(asked) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [int(row[2]) for row in sorted(rows, key=lambda row: -float(row[4]))] == order
