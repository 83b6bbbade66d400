"""What the query seeks, as a setting and per call: the same bits, and never another one's cache."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import random
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny import byte_tokenizer, tiny_model

from icr_rag import Reranker, RerankerConfig, cli
from icr_rag.calls import instructed
from icr_rag.errors import ConfigError, InputError
from icr_rag.methods import BUILT_IN, listed
from icr_rag.profiles import HeadWeight, Profile, Shape
from icr_rag.prompts.comparison import ComparisonPrompts
from icr_rag.prompts.query_likelihood import QueryLikelihoodPrompts
from icr_rag.prompts.yes_no import YesNoPrompts

QUERY = "Which metal melts first?"
DOCUMENTS = [
    "Tin melts at 232 degrees.",
    "Lead is soft, and copper conducts heat well.",
    "",
    "Gold.",
    "Lead is soft, and copper conducts heat well.",
]
OWN = "Find what refutes this claim."
OTHERS = [OWN, "question_answering"]
CASES = [(row, states) for row in BUILT_IN for states in row.document_states]
LIKELIHOOD = {"scoring": "likelihood"}
KEPT = {"document_states": "independent"}
ATTENTION = {"framework": "pointwise", "layers": (1, 2), "reading": "log_mass"}
TOKENIZER = byte_tokenizer()


def tiny(family="llama", **fields):
    return Reranker.from_model(tiny_model(family), TOKENIZER, **fields)


def of_method(row, states):
    variant = {"likelihood": row.variant} if row.variant else {}
    layers = {"layers": (1, 2)} if row.reads_attention else {}
    return {"scoring": row.scoring, "framework": row.framework, "document_states": states,
            **variant, **layers}  # fmt: skip


def told(ranking):
    return [hit.index for hit in ranking], ranking.scores, ranking.score_groups


# --- what is written ------------------------------------------------------------------------------


def whole(prompts, query, documents):
    """The first prompt of a batch, as text."""
    ids = prompts.encode_query(query)
    encoded = prompts.encode_documents(documents)
    asked = [encoded] if isinstance(prompts, ComparisonPrompts) else encoded
    batch = prompts.build(ids, asked)
    tail = batch.tails[0].token_ids if batch.tails else []
    return TOKENIZER.decode([*batch.head_ids, *batch.bodies[0], *tail])


CHAT = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize(
    ("make", "instruction", "wanted"),
    [
        (lambda i: QueryLikelihoodPrompts(TOKENIZER, instruction=i), "question_answering",
         "Passage: d\nPlease write a question that this passage answers.\nQuestion: q"),
        (lambda i: QueryLikelihoodPrompts(TOKENIZER, instruction=i), OWN,
         f"Passage: d\n{OWN}\nQuery: q"),
        (lambda i: YesNoPrompts(TOKENIZER, "chat", i), "question_answering",
         CHAT.format("Passage: d\n\nQuestion: q\n\nDoes the passage answer the question? Answer "
                     "with Yes or No.")),
        (lambda i: YesNoPrompts(TOKENIZER, "chat", i), OWN,
         CHAT.format(f"Passage: d\n\nInstruction: {OWN}\nQuery: q\n\nDoes the passage meet the "
                     "requirements of the instruction and the query? Answer with Yes or No.")),
        (lambda i: ComparisonPrompts(TOKENIZER, "setwise", instruction=i), OWN,
         CHAT.format(f'{OWN}\n\nGiven the query "q", which of the following passages is the most '
                     "relevant one to it?\n\nPassage A: d\n\nPassage B: e\n\nOutput only the label "
                     "of the most relevant passage.") + "Passage"),
        (lambda i: ComparisonPrompts(TOKENIZER, "pairwise", instruction=i), "question_answering",
         CHAT.format('Given the question "q", which of the following two passages answers it '
                     "better?\n\nPassage A: d\n\nPassage B: e\n\nOutput Passage A or Passage B.")
         + "Passage"),
    ],
)  # fmt: skip
def test_prompts_say_it(make, instruction, wanted):
    documents = ["d", "e"]
    prompts = make(instruction)
    assert whole(prompts, "q", documents) == wanted


@pytest.mark.parametrize("instruction", OTHERS)
def test_lists_and_trained_templates_say_it(instruction):
    written = whole(ComparisonPrompts(TOKENIZER, "listwise", True, instruction), "q", ["d", "e"])
    trained = whole(YesNoPrompts(TOKENIZER, "qwen3_reranker", instruction), "q", ["d"])
    if instruction == OWN:
        assert f"user\n{OWN}\n\nRank the passages below by their relevance to the query" in written
        assert f"\n<Instruct>: {OWN}\n<Query>: q\n<Document>: d" in trained
    else:
        assert written.count("by how well they answer the question") == 2
        assert '\n\nQuestion: "' in written
        assert "<Instruct>: Given a question, retrieve passages that answer the" in trained


def test_overhead_covers_the_prompt_and_what_is_kept():
    for instruction in ("retrieval", "question_answering", OWN, "a b"):
        prompts = QueryLikelihoodPrompts(TOKENIZER, None, instruction)
        query, (document,) = prompts.encode_query("?"), prompts.encode_documents(["abc"])
        batch = prompts.build(query, [document])
        used = len(batch.head_ids) + len(batch.bodies[0]) + len(query)
        kept = len(batch.head_ids) + len(prompts.kept(document))
        assert max(used, kept) <= prompts.overhead(query) + len(document)
        shared = batch.bodies[0][: -prompts.stem]
        assert prompts.kept(document)[: len(shared)] == shared


# --- per call, as by the setting ------------------------------------------------------------------


@pytest.mark.parametrize(("row", "states"), CASES, ids=lambda x: getattr(x, "label", x))
def test_a_call_equals_the_setting_to_the_last_bit(row, states):
    fields = of_method(row, states)
    ranker = tiny(**fields)
    before = ranker.rank(QUERY, DOCUMENTS)
    plain = told(before)
    kept = {} if states == "joint" else {"states_memory": 999}
    for instruction in OTHERS:
        # With kept states of its own.
        wanted = tiny(**fields, instruction=instruction, **kept).rank(QUERY, DOCUMENTS)
        for _ in range(2):
            found = ranker.rank(QUERY, DOCUMENTS, instruction=instruction)
            assert told(found) == told(wanted)
        assert found.usage.calls == wanted.usage.calls
        # Sorts and what is written may come out alike; prompts do not.
        assert (found.scores, found.usage.tokens) != (before.scores, before.usage.tokens)
    assert told(ranker.rank(QUERY, DOCUMENTS, instruction="retrieval")) == plain
    assert told(ranker.rank(QUERY, DOCUMENTS)) == plain


EXPLAINED = [
    {**LIKELIHOOD, "score_mode": "explained"},
    {**LIKELIHOOD, **KEPT, "score_mode": "explained"},
    {**ATTENTION, "score_mode": "explained"},
    {**LIKELIHOOD, "likelihood": "yes_no", "score_mode": "explained"},
    {**LIKELIHOOD, "likelihood": "yes_no", "yes_no_template": "qwen3_reranker"},
    {**LIKELIHOOD, **KEPT, "cascade": 2},
]


@pytest.mark.parametrize("fields", EXPLAINED, ids=str)
def test_documents_without_content_are_those_of_the_instruction(fields):
    ranker = tiny(**fields)
    plain = told(ranker.rank(QUERY, DOCUMENTS))
    for instruction in OTHERS:
        wanted = told(tiny(**fields, instruction=instruction).rank(QUERY, DOCUMENTS))
        assert told(ranker.rank(QUERY, DOCUMENTS, instruction=instruction)) == wanted
        assert wanted != plain
    assert told(ranker.rank(QUERY, DOCUMENTS)) == plain


INTERLEAVED = [
    {**LIKELIHOOD, **KEPT, "score_mode": "explained"},
    {**ATTENTION, **KEPT},
    {"framework": "listwise", "layers": (1, 2), **KEPT},
    {"framework": "setwise", "layers": (1, 2)},
]


@pytest.mark.parametrize("fields", INTERLEAVED, ids=str)
def test_threads_and_turns_do_not_mix_them(fields, monkeypatch):
    # Fewer than there are, so that some are made again.
    monkeypatch.setattr(instructed, "MOST_INSTRUCTIONS", 2)
    asked = [None, "retrieval", "question_answering", OWN, "Find the metals."]
    wanted = {
        one: told(tiny(**fields, **({} if one is None else {"instruction": one})).rank(
            QUERY, DOCUMENTS
        ))
        for one in asked
    }  # fmt: skip
    ranker = tiny(**fields)
    order = asked * 4
    random.Random(5).shuffle(order)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda one: ranker.rank(QUERY, DOCUMENTS, instruction=one), order))
    for one, ranking in zip(order, found, strict=True):
        assert told(ranking) == wanted[one], one
    assert len(ranker._scorers.instructed) <= 2


def test_the_latest_are_kept_on_the_same_weights(monkeypatch):
    from icr_rag.calls import load

    made = []
    plain = load.scorers_on

    def counted(engine, config, due=None):
        made.append(config.instruction)
        return plain(engine, config, due)

    monkeypatch.setattr(load, "scorers_on", counted)
    monkeypatch.setattr(instructed, "MOST_INSTRUCTIONS", 2)
    ranker = tiny(**LIKELIHOOD)
    engine = ranker.engine
    for number in "0101201":
        ranker.rank(QUERY, DOCUMENTS, instruction=f"instruction {number}")
    # 2 lets 0 go, which then lets 1 go.
    assert [one[-1] for one in made[1:]] == ["0", "1", "2", "0", "1"]
    assert ranker.engine is engine
    made = ranker._scorers.instructed.get(ranker._scorers.made, ranker.config, "instruction 1")
    assert made[0].engine is engine
    ranker.close()
    assert len(ranker._scorers.instructed) == 0


# --- kept states ------------------------------------------------------------------------------


def direct(model, instruction, document):
    """Mean log P of the query, by one plain pass over the prompt."""
    prompts = QueryLikelihoodPrompts(TOKENIZER, instruction=instruction)
    query, (ids,) = prompts.encode_query(QUERY), prompts.encode_documents([document])
    batch = prompts.build(query, [ids])
    prompt = [*batch.head_ids, *batch.bodies[0]]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *query]]), use_cache=False).logits[0]
    rows = logits[len(prompt) - 1 : -1].double().log_softmax(-1)
    return float(rows[torch.arange(len(query)), torch.tensor(query)].mean())


@pytest.mark.parametrize("states", [{}, KEPT, {**KEPT, "prefill_chunk": 16}])
@pytest.mark.parametrize("instruction", ["retrieval", OWN, "a b", OWN * 3])
@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt_oss"])
def test_likelihood_equals_a_plain_pass(name, states, instruction):
    model = tiny_model(name)
    documents = [text for text in DOCUMENTS if text]
    ranker = Reranker.from_model(model, TOKENIZER, **LIKELIHOOD, **states)
    for _ in range(2):
        found = ranker.rank(QUERY, documents, instruction=instruction).scores
        wanted = [direct(model, instruction, document) for document in documents]
        assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("fields", [ATTENTION, {"scoring": "mixed", "layers": (1, 2)}], ids=str)
def test_attention_over_kept_states_is_that_of_whole_prompts(fields):
    joint, kept = tiny(**fields), tiny(**fields, **KEPT)
    for instruction in (*OTHERS, "a b"):
        wanted = joint.rank(QUERY, DOCUMENTS, instruction=instruction).scores
        for _ in range(2):
            found = kept.rank(QUERY, DOCUMENTS, instruction=instruction).scores
            assert found == pytest.approx(wanted, abs=1e-4)


@pytest.mark.parametrize(
    "fields",
    [LIKELIHOOD, ATTENTION, {"scoring": "mixed"}, {"framework": "listwise", "layers": (1, 2)}],
    ids=str,
)
def test_states_of_documents_serve_every_instruction(fields, tmp_path):
    # On other weights and in a folder, so that nothing is there yet.
    documents = [f"{n} is a number" * 3 for n in range(4)]
    ranker = tiny("qwen2", **fields, **KEPT, states_dir=str(tmp_path))
    done = ranker.encode(documents)
    assert done.new == 4
    files = sorted(tmp_path.rglob("*.safetensors"))
    for instruction in (None, *OTHERS):
        usage = ranker.rank(QUERY, documents, instruction=instruction).usage
        assert usage.tokens < done.tokens
        again = tiny("qwen2", **fields, **KEPT, states_dir=str(tmp_path),
                     **({} if instruction is None else {"instruction": instruction}))  # fmt: skip
        assert again.encode(documents).new == 0
    assert sorted(tmp_path.rglob("*.safetensors")) == files


def test_states_that_were_made_for_an_instruction_are_those_of_all():
    fields = {**LIKELIHOOD, **KEPT}
    wanted = told(tiny("qwen3", **fields, states_memory=500).rank(QUERY, DOCUMENTS))
    first = tiny("qwen3", **fields)
    first.rank(QUERY, DOCUMENTS, instruction=OWN)
    assert told(first.rank(QUERY, DOCUMENTS)) == wanted


# --- every way in -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [LIKELIHOOD, {"framework": "listwise", "layers": (1, 2), **KEPT}],
    ids=str,
)
def test_all_calls_take_it(fields):
    queries = [QUERY, "What is soft?"]
    ranker, set_so = tiny(**fields), tiny(**fields, instruction=OWN)
    wanted = [told(set_so.rank(query, DOCUMENTS)) for query in queries]
    found = asyncio.run(ranker.arank(QUERY, DOCUMENTS, instruction=OWN))
    assert told(found) == wanted[0]
    many = ranker.rank_many(queries, [DOCUMENTS] * 2, instruction=OWN)
    together = set_so.rank_many(queries, [DOCUMENTS] * 2)
    assert list(map(told, many)) == list(map(told, together))
    for one, other in zip(many, wanted, strict=True):
        assert one.scores == pytest.approx(other[1], abs=1e-5)
    assert many[0].scores != ranker.rank_many(queries, [DOCUMENTS] * 2)[0].scores
    # One by itself goes another way.
    assert told(ranker.rank_many(queries[:1], [DOCUMENTS], instruction=OWN)[0]) == wanted[0]


@pytest.mark.parametrize("fields", [{"framework": "listwise", "layers": (1, 2)}, LIKELIHOOD])
def test_attention_is_read_with_it(fields):
    ranker = tiny(**fields)
    found = ranker.read_attention(QUERY, DOCUMENTS, instruction=OWN)
    wanted = tiny(**fields, instruction=OWN).read_attention(QUERY, DOCUMENTS)
    assert found.token_ids == wanted.token_ids
    assert torch.equal(found.query, wanted.query)
    assert found.token_ids != ranker.read_attention(QUERY, DOCUMENTS).token_ids


@pytest.mark.parametrize("wrong", ["", " ", "refute", "Retrieval", 5, ["a b"]])
def test_what_is_no_instruction_is_refused_in_the_same_words(wrong):
    ranker = tiny(**LIKELIHOOD, on_error="passthrough")
    said = "it must be a str" if not isinstance(wrong, str) else (
        "allowed are 'retrieval', 'question_answering' or a whole sentence"
    )  # fmt: skip
    calls = (
        lambda: ranker.rank(QUERY, DOCUMENTS, instruction=wrong),
        lambda: ranker.rank_many([QUERY], [DOCUMENTS], instruction=wrong),
        lambda: ranker.read_attention(QUERY, DOCUMENTS, instruction=wrong),
        lambda: asyncio.run(ranker.arank(QUERY, DOCUMENTS, instruction=wrong)),
    )
    for call in calls:
        with pytest.raises(InputError, match="instruction") as caught:
            call()
        assert said in str(caught.value)
    if isinstance(wrong, str):
        with pytest.raises(ConfigError, match="instruction") as caught:
            RerankerConfig(instruction=wrong)
        assert said in str(caught.value)


def test_pickles_and_copies_are_as_before(model_folder):
    ranker = Reranker(model=model_folder, dtype="float32", **LIKELIHOOD)
    wanted = told(ranker.rank(QUERY, DOCUMENTS, instruction=OWN))
    again = pickle.loads(pickle.dumps(ranker))
    assert again.config == ranker.config
    assert told(again.rank(QUERY, DOCUMENTS, instruction=OWN)) == wanted
    assert copy.deepcopy(ranker) is ranker
    other = ranker.with_config(instruction=OWN)
    assert told(other.rank(QUERY, DOCUMENTS)) == wanted
    # What is set is what None stands for.
    assert told(other.rank(QUERY, DOCUMENTS, instruction="retrieval")) == told(
        ranker.rank(QUERY, DOCUMENTS)
    )


def test_a_profile_holds_for_all_instructions(tmp_path):
    path = tmp_path / "profile.json"
    heads = (HeadWeight(layer=2, head=1, reading="log_mass", weight=2.0),)
    Profile(model="t", shape=Shape.of(tiny_model("llama").config), framework="pointwise",
            heads=heads).save(path)  # fmt: skip
    ranker = tiny(profile=str(path))
    plain = ranker.rank(QUERY, DOCUMENTS)
    found = ranker.rank(QUERY, DOCUMENTS, instruction=OWN)
    assert found.usage.layers == plain.usage.layers == (2,)
    assert told(found) == told(tiny(profile=str(path), instruction=OWN).rank(QUERY, DOCUMENTS))
    assert found.scores != plain.scores


def test_langchain_and_the_command_line_take_it(model_folder, tmp_path, capsys):
    pytest.importorskip("langchain_core")
    from icr_rag.integrations.langchain import ICRRerank

    wanted = tiny(**LIKELIHOOD, instruction=OWN).rank(QUERY, DOCUMENTS)
    adapter = ICRRerank(tiny(**LIKELIHOOD))
    for found in (
        adapter.rerank(DOCUMENTS, QUERY, instruction=OWN),
        asyncio.run(adapter.arerank(DOCUMENTS, QUERY, instruction=OWN)),
    ):
        assert [row["relevance_score"] for row in found] == [hit.score for hit in wanted]
    path = tmp_path / "documents.jsonl"
    path.write_text("\n".join(json.dumps({"text": text}) for text in DOCUMENTS))
    asked = ["rerank", QUERY, str(path), "--model", model_folder, "--scoring", "likelihood",
             "--dtype", "float32", "--instruction", OWN, "--format", "json"]  # fmt: skip
    assert cli.main(asked) == 0
    hits = json.loads(capsys.readouterr().out)["hits"]
    assert [hit["index"] for hit in hits] == [hit.index for hit in wanted]
    assert hits[0]["score"] == pytest.approx(wanted[0].score, abs=1e-6)


def test_every_method_has_it():
    assert all(row.uses("instruction") for row in BUILT_IN), listed(BUILT_IN)
