"""Generation: answers are the model's own, and no answer can break a ranking."""

from __future__ import annotations

import logging
import re
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import FAMILIES, byte_tokenizer, meaningful, tiny_model
from transformers import GenerationConfig

from icr_rag import Reranker
from icr_rag.errors import UnsupportedModelError
from icr_rag.model.greedy import Generated, generate
from icr_rag.prompts.layout import PromptBatch
from icr_rag.scoring import generation
from icr_rag.scoring.base import Cost

QUERY = "Which metal melts first?"
DOCUMENTS = ["Tin melts at 232 degrees.", "Lead is soft.", "Copper conducts heat.", "Gold."]
FRAMEWORKS = ["listwise", "setwise", "pairwise", "pointwise"]


def settings_of(framework, **fields):
    """These settings, without those that mean nothing to generation in this framework."""
    kept = meaningful("generation", framework, **fields)
    return {name: kept[name] for name in fields if name in kept}


NEW_TOKENS = 8


def make(framework="listwise", family="llama", **fields):
    return Reranker.from_model(
        tiny_model(family), byte_tokenizer(), scoring="generation", framework=framework, **fields
    )


# --- the model's own answers ----------------------------------------------------------------


def own_answer(family, prompt):
    """What transformers' own greedy `generate` gives for one prompt by itself."""
    config = GenerationConfig(
        max_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=2, pad_token_id=0
    )
    ids = torch.tensor([prompt])
    with torch.no_grad():
        output = tiny_model(family).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    return output[0, len(prompt) :].tolist()


def prompts_for(framework, count=4):
    """Prompts of several lengths, as scorers build them."""
    scorer = make(framework).scorer
    query = scorer.prompts.encode_query(QUERY)
    ids = scorer.prompts.encode_documents(DOCUMENTS[:count])
    pointwise = framework == "pointwise"
    return scorer.prompts.build(query, ids if pointwise else [ids, ids[:2], ids[1:], ids[::-1]])


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("framework", ["pointwise", "listwise"])
@pytest.mark.filterwarnings("ignore:.*generation flags.*")
def test_answers_are_those_of_transformers(family, framework):
    batch = prompts_for(framework)
    engine = make(family=family).engine
    found = generate(engine, batch, NEW_TOKENS)
    answers = [own_answer(family, [*batch.head_ids, *body]) for body in batch.bodies]
    tokenizer = byte_tokenizer()
    assert found.texts == [tokenizer.decode(ids, skip_special_tokens=True) for ids in answers]
    assert found.tokens == sum(map(len, answers))


@pytest.mark.parametrize("family", ["llama", "gemma2", "mistral", "gpt_oss"])
def test_batched_equals_one_by_one(family):
    batch = prompts_for("setwise")
    engine = make(family=family).engine
    alone = [
        generate(engine, PromptBatch(batch.head_ids, [body]), NEW_TOKENS) for body in batch.bodies
    ]
    for chunk in (1, 900, 10_000, None):
        together = generate(engine, batch, NEW_TOKENS, chunk)
        assert together.texts == [one.texts[0] for one in alone]
        assert together.tokens == sum(one.tokens for one in alone)


def test_an_answer_ends_where_the_model_ends_it():
    """The token that ends an answer is counted and not shown; what pads a batch is neither."""
    import copy

    model = copy.deepcopy(tiny_model("llama"))
    batch = prompts_for("pointwise")
    prompts = [[*batch.head_ids, *body] for body in batch.bodies]
    before = [own_answer("llama", prompt) for prompt in prompts]
    # The third token of the first answer ends answers from now on.
    end = before[0][2]
    model.generation_config.eos_token_id = [2, end]
    reranker = Reranker.from_model(model, byte_tokenizer(), scoring="generation")
    found = generate(reranker.engine, batch, NEW_TOKENS)
    cut = [ids[: ids.index(end)] if end in ids else ids for ids in before]
    assert [len(ids) for ids in cut] != [len(ids) for ids in before]
    assert found.texts == [byte_tokenizer().decode(ids, skip_special_tokens=True) for ids in cut]
    ended = sum(end in ids for ids in before)
    assert found.tokens == sum(map(len, cut)) + ended


#: What model files set, one by one enough to change the texts or to raise a warning.
HABITS = {
    "repetition_penalty": 3.0,
    "no_repeat_ngram_size": 1,
    "num_beams": 3,
    "early_stopping": True,
    "do_sample": True,
    "temperature": 0.2,
    "top_k": 2,
    "top_p": 0.1,
    "min_new_tokens": 5,
    "max_length": 3,
    "bad_words_ids": [[token] for token in range(4, 90)],
    "suppress_tokens": list(range(90, 200)),
    "begin_suppress_tokens": list(range(200, 264)),
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 9,
    "exponential_decay_length_penalty": [1, 9.0],
    "sequence_bias": [[[200], 50.0]],
    "renormalize_logits": True,
    "num_return_sequences": 2,
    "output_scores": True,
    "return_dict_in_generate": True,
    "cache_implementation": "static",
    "use_cache": False,
    "max_time": 0.0,
    "stop_strings": ["e"],
    "guidance_scale": 4.0,
    "prompt_lookup_num_tokens": 3,
    "token_healing": True,
}


def likeliest(model, prompt):
    """Tokens of a plain loop that always takes the likeliest one, up to the one that ends it."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(NEW_TOKENS):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] == 2:
                break
    return [token for token in ids[len(prompt) :] if token != 2]


def with_habits(**habits):
    import copy

    model = copy.deepcopy(tiny_model("llama"))
    for name, value in habits.items():
        setattr(model.generation_config, name, value)
    return model


@pytest.mark.parametrize("habits", [{name: HABITS[name]} for name in HABITS] + [HABITS])
@pytest.mark.parametrize("wrapped", [False, True])
# One that PEFT causes as it wraps the model.
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_text_is_the_likeliest_whatever_the_models_file_says(
    habits, wrapped, caplog, own_records, monkeypatch
):
    model = with_habits(**habits)
    if wrapped:
        peft = pytest.importorskip("peft")
        model = peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).eval()
    before = model.generation_config.to_dict()
    batch = prompts_for("pointwise")
    reranker = Reranker.from_model(model, byte_tokenizer(), scoring="generation")
    # transformers' loggers hand nothing on to the root one, where caplog listens.
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    with caplog.at_level("WARNING"):
        found = generate(reranker.engine, batch, NEW_TOKENS)
    wanted = [likeliest(tiny_model("llama"), [*batch.head_ids, *body]) for body in batch.bodies]
    assert found.texts == [byte_tokenizer().decode(ids) for ids in wanted]
    assert own_records() == []
    assert model.generation_config.to_dict() == before


def test_the_model_is_left_as_it_was():
    model = tiny_model("llama")
    state = (model.config._attn_implementation, model.generation_config.to_dict())
    make().rank(QUERY, DOCUMENTS)
    assert (model.config._attn_implementation, model.generation_config.to_dict()) == state


def test_without_an_lm_head_nothing_is_written():
    reranker = Reranker.from_model(
        tiny_model("llama").model, byte_tokenizer(), scoring="generation"
    )
    with pytest.raises(UnsupportedModelError, match="no LM head"):
        reranker.rank(QUERY, DOCUMENTS)


# --- any answer gives a ranking -------------------------------------------------------------


class Answers:
    """Stands in for `generate`: what ``answer`` makes of each prompt's text."""

    def __init__(self, answer):
        self.answer, self.prompts = answer, []

    def __call__(self, engine, batch, new_tokens, chunk=None):
        prompts = [engine.tokenizer.decode([*batch.head_ids, *body]) for body in batch.bodies]
        self.prompts += prompts
        return Generated([self.answer(prompt) for prompt in prompts], 3 * len(prompts))


def ranked(answer, framework, documents, **fields):
    """A ranking by these answers, and the prompts that were answered."""
    with pytest.MonkeyPatch.context() as patch:
        answers = Answers(answer)
        patch.setattr(generation, "generate", answers)
        return make(framework, **fields).rank(QUERY, documents), answers.prompts


PIECES = st.sampled_from(
    ["[1]", "[2]", "[0]", "[99]", "[-3]", " > ", ">", "Passage", " A", "B", "Z", "Yes", "no", ",",
     "\n", "</think>", "<|im_end|>", "[", "]", "1.", " 2", "10", "٣", "[２]", "I", " the answer is"]
)  # fmt: skip
GARBAGE = st.lists(PIECES | st.text(max_size=4), max_size=12).map("".join)


@settings(max_examples=120)
@given(
    framework=st.sampled_from(FRAMEWORKS),
    answers=st.lists(GARBAGE, min_size=1, max_size=7),
    count=st.integers(1, 40),
    window=st.none() | st.integers(2, 9),
    sort=st.sampled_from(["heap", "bubble"]),
    top=st.none() | st.integers(1, 12),
    set_size=st.integers(2, 6),
)
def test_garbage_loses_repeats_and_invents_nothing(
    framework, answers, count, window, sort, top, set_size
):
    fields = {"window": window} if framework == "listwise" else {}
    turn = iter(range(10**9))
    documents = [f"document {number}" for number in range(count)]
    ranking, prompts = ranked(
        lambda _: answers[next(turn) % len(answers)],
        framework,
        documents,
        **settings_of(framework, sort=sort, sort_top=top, set_size=set_size, **fields),
    )
    assert sorted(hit.index for hit in ranking) == list(range(count))
    assert [hit.document.text for hit in ranking] == [documents[hit.index] for hit in ranking]
    assert sorted(ranking.scores, reverse=True) == [hit.score for hit in ranking]
    assert ranking.usage.calls == len(prompts)
    assert ranking.usage.generated_tokens == 3 * len(prompts)
    assert ranking.usage.repairs >= 0


@pytest.mark.parametrize(
    ("framework", "repairs_of_a_prompt"),
    [("listwise", 4), ("setwise", 1), ("pairwise", 1), ("pointwise", 1)],
)
@pytest.mark.parametrize("text", ["", "I cannot tell.", "?!"])
def test_answers_that_say_nothing_keep_the_order_and_are_counted(
    framework, repairs_of_a_prompt, text
):
    ranking, prompts = ranked(lambda _: text, framework, DOCUMENTS)
    assert [hit.index for hit in ranking] == [0, 1, 2, 3]
    assert ranking.usage.repairs == repairs_of_a_prompt * len(prompts) > 0


def test_repairs_of_a_list_add_up():
    """Missing: 1 and 4. Repeated: 3. Out of range: 9."""
    ranking, _ = ranked(lambda _: "[3] > [2] > [3] > [9]", "listwise", DOCUMENTS)
    assert [hit.index for hit in ranking] == [2, 1, 0, 3]
    assert ranking.usage.repairs == 4


def test_yes_before_what_is_neither_before_no():
    said = {"Tin": "No.", "Lead": "Hard to say", "Copper": "Yes, it does", "Gold": "yes"}
    ranking, _ = ranked(
        lambda prompt: next(said[name] for name in said if name in prompt), "pointwise", DOCUMENTS
    )
    assert ranking.scores == (0.0, 0.5, 1.0, 1.0)
    assert [hit.index for hit in ranking] == [2, 3, 1, 0]
    assert ranking.usage.repairs == 1


# --- answers that agree with each other -----------------------------------------------------


def value(text):
    """The hidden key of a document, "worth 7"."""
    return int(re.search(r"worth (\d+)", text)[1])


def sensible(prompt):
    """The right answer to any of the prompts, read from its text."""
    passages = re.findall(r"(?:Passage (\w+|\[\d+\]): |\n\n(\[\d+\]) )worth (\d+)", prompt)
    if len(passages) == 0:
        return "Yes" if value(prompt) > 5 else "No"
    named = [(label or number, int(key)) for label, number, key in passages]
    best_first = [name for name, _ in sorted(named, key=lambda pair: -pair[1])]
    return " > ".join(best_first) if "Rank the" in prompt else f" {best_first[0]}"


@settings(max_examples=60)
@given(
    framework=st.sampled_from(["listwise", "setwise", "pairwise"]),
    keys=st.lists(st.integers(0, 999), min_size=1, max_size=14, unique=True),
    sort=st.sampled_from(["heap", "bubble", "all_pairs"]),
    set_size=st.integers(2, 14),
)
def test_consistent_answers_give_the_right_order(framework, keys, sort, set_size):
    if sort == "all_pairs" and framework != "pairwise":
        sort = "heap"
    documents = [f"worth {key}" for key in keys]
    fields = settings_of(framework, sort=sort, sort_top=None, set_size=set_size)
    ranking, _ = ranked(sensible, framework, documents, **fields)
    assert [hit.document.text for hit in ranking] == [
        f"worth {key}" for key in sorted(keys, reverse=True)
    ]
    assert ranking.usage.repairs == 0


def test_windows_carry_the_best_to_the_top():
    keys = [*range(100, 140), 200, 150]
    ranking, prompts = ranked(
        sensible, "listwise", [f"worth {key}" for key in keys], window=10, stride=5
    )
    # Half of a window travels: the best five are in order wherever they came from.
    assert [value(hit.document.text) for hit in ranking][:5] == [200, 150, 139, 138, 137]
    assert all(len(re.findall(r"worth \d+", prompt)) <= 10 for prompt in prompts)
    assert ranking.usage.repairs == 0


def test_a_pair_is_asked_about_in_both_orders():
    _, prompts = ranked(sensible, "pairwise", ["worth 1", "worth 2"])
    shown = [re.findall(r"worth \d", prompt) for prompt in prompts]
    assert shown == [["worth 1", "worth 2"], ["worth 2", "worth 1"]]


@pytest.mark.parametrize("answer", ["A", "B", "Passage A", "neither"])
def test_orders_that_disagree_are_a_tie(answer, monkeypatch):
    """Whoever always names the same place has no preference."""
    monkeypatch.setattr(generation, "generate", Answers(lambda _: answer))
    scorer = make("pairwise").scorer
    query, ids = scorer.prompts.encode_query(QUERY), scorer.prompts.encode_documents(DOCUMENTS)
    assert scorer.prefer(query, [(ids[0], ids[1]), (ids[2], ids[1])], Cost()) == [0.0, 0.0]
    for sort in ("heap", "bubble", "all_pairs"):
        ranking = make("pairwise", sort=sort).rank(QUERY, DOCUMENTS)
        assert [hit.index for hit in ranking] == [0, 1, 2, 3]


def test_one_order_that_says_nothing_is_a_tie(monkeypatch):
    said = iter(["A", "what?", "B", "A"])
    monkeypatch.setattr(generation, "generate", Answers(lambda _: next(said)))
    scorer = make("pairwise").scorer
    query, ids = scorer.prompts.encode_query(QUERY), scorer.prompts.encode_documents(DOCUMENTS)
    cost = Cost()
    assert scorer.prefer(query, [(ids[0], ids[1]), (ids[0], ids[2])], cost) == [0.0, -1.0]
    assert (cost.repairs, cost.calls) == (1, 4)


def test_an_answer_has_room_for_all_labels(monkeypatch):
    """A complete ranking, as long as it is, is not cut off."""
    rooms = {}

    def record(engine, batch, new_tokens, chunk=None):
        rooms[len(rooms)] = new_tokens
        return Generated([""] * len(batch.bodies), 0)

    monkeypatch.setattr(generation, "generate", record)
    for count in (2, 9, 40, 120):
        complete = " > ".join(f"[{number}]" for number in range(1, count + 1))
        make().rank(QUERY, [f"document {number}" for number in range(count)])
        assert rooms[len(rooms) - 1] >= len(byte_tokenizer()(complete).input_ids)


def test_no_set_is_asked_about_twice():
    _, prompts = ranked(sensible, "setwise", [f"worth {key}" for key in range(12)], sort="bubble")
    assert max(Counter(prompts).values()) == 1
