"""Every causal language model that transformers can build ranks right, or is refused in words.

Each is built tiny, with random weights, and held to invariants instead of a list of names. There is
no third outcome: another library's error, or a score that depends on what it should not, fails.
A choice of kinds runs with every change; all of them by ``make test-architectures``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
import transformers
from architectures import VARIANTS, names, tiny_causal_lm, tiny_config
from packaging.version import Version
from tiny import byte_tokenizer
from transformers import AutoModelForCausalLM

from icr_rag import Reranker
from icr_rag.errors import ConfigError, ModelLoadError, UnsupportedModelError
from icr_rag.model import tap
from icr_rag.model.view import find_decoder
from icr_rag.scoring.base import Cost

QUERY = "Which melts?"
SHORT, LONG = "Tin melts at 232.", "Lead is soft, copper conducts, iron rusts, gold does not."
DOCUMENTS = [SHORT, LONG, "Zinc."]

#: One of each kind: how tails follow, what layers keep, what they compute.
CHOICE = [
    "llama", "gpt2", "qwen3_moe", "gemma2", "gpt_oss", "deepseek_v3", "minicpm3", "qwen3_next",
    "gemma4_text", "gpt_neo", "mamba", "bert", "bloom", "deepseek_v32",
]  # fmt: skip
OTHERS = [
    *(name for name in names() if name not in CHOICE),
    *(name for name, (kind, _) in VARIANTS.items() if kind in names()),
]

TOKENIZER = byte_tokenizer()

pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True)
class Subject:
    """One model type."""

    name: str
    model: torch.nn.Module


def build(name):
    try:
        return Subject(name, tiny_causal_lm(name))
    except ImportError as error:
        pytest.skip(f"it needs another library: {error}")


# Of the module's scope, so that all tests of one model follow each other.
@pytest.fixture(
    scope="module",
    params=[
        *(name for name in CHOICE if name in names()),
        *(pytest.param(name, marks=pytest.mark.architectures) for name in OTHERS),
    ],
)
def subject(request):
    return build(request.param)


def close(found, wanted, tolerance=1e-4):
    """Within a tolerance of the numbers' own size."""
    size = max(1.0, *(abs(value) for value in wanted)) if wanted else 1.0
    return found == pytest.approx(wanted, abs=tolerance * size)


def ranked(model, documents=DOCUMENTS, **settings):
    return Reranker.from_model(model, TOKENIZER, fusion="none", **settings).rank(QUERY, documents)


def refusal(model, **settings):
    """Why a way of scoring is refused; None if it ranks."""
    try:
        ranked(model, **settings)
    except UnsupportedModelError as error:
        return str(error)
    return None


WAYS = {
    "attention": {"framework": "pointwise", "layers": "all"},
    "likelihood": {"scoring": "likelihood"},
    "yes_no": {"scoring": "likelihood", "likelihood": "yes_no"},
    "generation": {"scoring": "generation", "framework": "pointwise"},
}


# --- (1) what is read is the attention -----------------------------------------------------------


def test_readings_equal_eager_maps(subject):
    model = subject.model
    try:
        reranker = Reranker.from_model(model, TOKENIZER, layers="all", prefill_chunk=11)
        reading = reranker.read_attention(QUERY, DOCUMENTS)
    except UnsupportedModelError:
        return
    eager = AutoModelForCausalLM.from_config(
        tiny_config(subject.name), attn_implementation="eager", dtype=torch.float32
    ).eval()
    eager.load_state_dict(model.state_dict())
    for query, ids, rows in (
        (reading.query, reading.token_ids, reading.query_rows),
        (reading.null, reading.null_token_ids, reading.null_query_rows),
    ):
        with torch.no_grad():
            output = eager(torch.tensor([ids]), output_attentions=True, use_cache=False)
        maps = [layer for layer in (output.attentions or ()) if layer is not None]
        if len(maps) == find_decoder(model).config.num_hidden_layers:
            maps = [maps[layer] for layer in reading.layers]
        if len(maps) != len(reading.layers) or any(m.dim() != 4 for m in maps):
            pytest.skip("it gives no maps; the proof compares what each layer did")
        last = max(span.end for span in reading.spans)
        wanted = torch.stack([m[0, :, rows, :last].mean(dim=1) for m in maps])
        torch.testing.assert_close(query[..., :last], wanted, atol=1e-5, rtol=0)


# --- (2) a document's score is its own -----------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_a_score_does_not_depend_on_neighbours(subject, way):
    model = subject.model
    if refusal(model, **WAYS[way]) is not None:
        return
    together = ranked(model, **WAYS[way]).scores
    alone = [ranked(model, [document], **WAYS[way]).scores[0] for document in DOCUMENTS]
    assert close(together, alone)
    # A model that does not see its document scores all alike.
    if way in ("attention", "likelihood"):
        assert len(set(together)) == 3
    assert close(ranked(model, DOCUMENTS[::-1], **WAYS[way]).scores[::-1], alone)


@pytest.mark.parametrize("way", ["attention", "likelihood", "yes_no"])
def test_a_score_does_not_depend_on_what_else_is_asked(subject, way):
    model = subject.model
    if refusal(model, **WAYS[way]) is not None:
        return
    queries = ["Which melts?", "a", "What is soft, and what does not melt at all?"]
    lists = [DOCUMENTS, [LONG], [SHORT, "Iron."]]
    reranker = Reranker.from_model(model, TOKENIZER, fusion="none", **WAYS[way])
    found = reranker.rank_many(queries, lists)
    for query, documents, ranking in zip(queries, lists, found, strict=True):
        assert close(ranking.scores, reranker.rank(query, documents).scores)


def test_both_readings_of_mixed_scoring_are_the_documents_own(subject):
    model = subject.model
    if refusal(model, scoring="mixed") is not None:
        return
    scorer = Reranker.from_model(model, TOKENIZER, scoring="mixed", layers="all").scorer
    query, *documents = scorer.prompts.encode_documents([QUERY, *DOCUMENTS])
    likelihoods, readings = scorer.read(query, documents, Cost())
    for place, document in enumerate(documents):
        own = scorer.read(query, [document], Cost())
        torch.testing.assert_close(own[0][0], likelihoods[place], atol=1e-3, rtol=1e-4)
        torch.testing.assert_close(own[1][0], readings[place], atol=1e-3, rtol=1e-3)


# --- (3) cut and whole ---------------------------------------------------------------------------


def test_loaded_from_a_folder_it_ranks_as_it_is(subject, tmp_path):
    model = subject.model
    ways = [{"framework": "pointwise", "layers": chosen} for chosen in ("auto", "all", (1, 2))]
    ways.append({"scoring": "likelihood"})
    for settings in ways:
        try:
            wanted = ranked(model, **settings).scores
        except (UnsupportedModelError, ConfigError):
            continue
        if not any(tmp_path.iterdir()):
            model.save_pretrained(tmp_path)
            TOKENIZER.save_pretrained(tmp_path)
        loaded = Reranker(model=str(tmp_path), dtype="float32", fusion="none", **settings)
        try:
            found = loaded.rank(QUERY, DOCUMENTS).scores
        except ModelLoadError as error:
            # Refused, then: a text part by itself, which transformers does not load either,
            # decoders of encoder-decoders, whose configuration counts the encoder's layers, and
            # types that are encoders unless they say otherwise.
            told = (
                "encoder-decoder",
                "is an encoder",
                "Unrecognized configuration",
                "no list of decoder layers",
            )
            if any(words in str(error) for words in told):
                continue
            raise
        assert close(found, wanted), settings


# --- (4) chunks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("framework", ["listwise", "pointwise"])
def test_chunks_change_nothing(subject, framework):
    model = subject.model
    settings = {"framework": framework, "layers": "all"}
    if refusal(model, **settings) is not None:
        return
    wanted = ranked(model, **settings).scores
    assert close(ranked(model, prefill_chunk=7, **settings).scores, wanted)


# --- (5) kept states -----------------------------------------------------------------------------


def test_kept_states_equal_nothing_kept(subject):
    model = subject.model
    for settings in (WAYS["attention"], WAYS["likelihood"]):
        try:
            wanted = ranked(model, **settings).scores
            keeping = Reranker.from_model(
                model, TOKENIZER, fusion="none", document_states="independent", **settings
            )
            assert close(keeping.rank(QUERY, DOCUMENTS).scores, wanted)
        except UnsupportedModelError:
            continue
        assert close(keeping.rank(QUERY, DOCUMENTS[::-1]).scores[::-1], wanted)
    for kept in ("independent", "blind"):
        tails = {"framework": "listwise", "layers": "all", "document_states": kept}
        try:
            first = ranked(model, **tails)
        except UnsupportedModelError:
            continue
        nothing = ranked(model, states_memory=0, **tails)
        assert close(nothing.scores, first.scores)
        assert close(ranked(model, DOCUMENTS[::-1], **tails).scores[::-1], first.scores)
        assert all(map(math.isfinite, first.scores))


# --- which is which ------------------------------------------------------------------------------

WORKING = [
    "llama", "llama4_text", "deepseek_v2", "deepseek_v3", "minicpm3", "gemma3n_text",
    "gemma4_text", "qwen3_next", "qwen3_5_text", "lfm2", "olmo_hybrid", "falcon_h1",
    "nemotron_h", "mllama",
]  # fmt: skip


@pytest.mark.parametrize("name", WORKING)
def test_these_rank(name):
    if name not in names():
        pytest.skip("this version of transformers has it not")
    model = build(name).model
    why = [refusal(model, **WAYS[way]) for way in ("attention", "likelihood")]
    if any(why) and Version(transformers.__version__) < Version("5.24"):
        # As transformers writes some of them there, they cannot be run so: refused, as they must.
        pytest.skip(f"refused with this version of transformers: {next(filter(None, why))}")
    assert why == [None, None]


@pytest.mark.parametrize("name", ["falcon", "bloom", "mpt", "gpt_neox_japanese", "xglm"])
def test_attention_of_their_own_is_not_read_and_likelihoods_are_right(name):
    if name not in names():
        pytest.skip("this version of transformers has it not")
    subject = build(name)
    assert "attends with code of its own" in refusal(subject.model, **WAYS["attention"])
    assert refusal(subject.model, **WAYS["likelihood"]) is None
    test_a_score_does_not_depend_on_neighbours(subject, "likelihood")
    test_a_score_does_not_depend_on_neighbours(subject, "generation")


def test_a_decoder_that_looks_both_ways_is_refused():
    model = build("gemma3_text-bidirectional").model
    for settings in WAYS.values():
        assert "not causal" in refusal(model, **settings)


@pytest.mark.parametrize("name", ["mamba", "mamba2", "falcon_mamba", "rwkv", "xlstm"])
def test_models_without_attention_are_refused_in_one_sentence(name):
    if name not in names():
        pytest.skip("this version of transformers has it not")
    model = build(name).model
    for settings in WAYS.values():
        assert refusal(model, **settings) is not None


# --- sabotage: each invariant's test must notice what would break it -----------------------------


def _unproven(monkeypatch):
    """Let a fault through that the proof would find first."""
    from icr_rag.model import proof

    monkeypatch.setattr(proof, "_same", lambda *arguments: True)


def _no_packing(monkeypatch):
    monkeypatch.setattr(tap, "_packed", lambda mask_function, current, device: mask_function)


def _lost_selection(monkeypatch):
    monkeypatch.setattr(tap, "selected_alone", lambda module, mask, settings, tokens: mask)


def _shifted_chunks(monkeypatch):
    from icr_rag.model import forward, runner

    run = forward.run_pass

    def shifted(model, current, rows, positions, *others, **keywords):
        if not current.packed:
            positions = [range(len(own)) for own in positions]
        return run(model, current, rows, positions, *others, **keywords)

    monkeypatch.setattr(forward, "run_pass", shifted)
    monkeypatch.setattr(runner, "run_pass", shifted)


def _one_too_many(monkeypatch):
    from icr_rag.states.document_states import DocumentStates

    cut = DocumentStates._cut
    monkeypatch.setattr(
        DocumentStates,
        "_cut",
        lambda self, cache, number, tokens: cut(
            self, cache, number, slice(tokens.start - 1, tokens.stop - 1)
        ),
    )


def _uncompared_cut(monkeypatch):
    from icr_rag.model import cut

    monkeypatch.setattr(cut, "_numbers", lambda module: {})


FAULTS = {
    "reading": (_no_packing, lambda tmp: test_readings_equal_eager_maps(build("llama"))),
    "selection": (
        _lost_selection,
        lambda tmp: test_readings_equal_eager_maps(build("deepseek_v32")),
    ),
    "neighbours": (
        _no_packing,
        lambda tmp: test_a_score_does_not_depend_on_neighbours(build("llama"), "likelihood"),
    ),
    "folder": (
        _uncompared_cut,
        lambda tmp: test_loaded_from_a_folder_it_ranks_as_it_is(build("minicpm3"), tmp),
    ),
    "chunks": (_shifted_chunks, lambda tmp: test_chunks_change_nothing(build("llama"), "listwise")),
    "states": (_one_too_many, lambda tmp: test_kept_states_equal_nothing_kept(build("llama"))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(fault, monkeypatch, tmp_path):
    needed = {"selection": "deepseek_v32", "folder": "minicpm3"}.get(fault, "llama")
    if needed not in names():
        pytest.skip(f"this version of transformers has no {needed}")
    plant, invariant = FAULTS[fault]
    _unproven(monkeypatch)
    plant(monkeypatch)
    with pytest.raises(AssertionError):
        invariant(tmp_path)


def test_masks_that_are_not_added_are_found_by_the_proof(monkeypatch):
    run = tap.running

    def running(current):
        current.adds_masks = False
        return run(current)

    wanted = ranked(build("falcon").model, **WAYS["likelihood"]).scores
    monkeypatch.setattr(tap, "running", running)
    told = refusal(build("falcon").model, **WAYS["likelihood"])
    if told is None:
        # Older versions make these masks in the model's own code.
        assert close(ranked(build("falcon").model, **WAYS["likelihood"]).scores, wanted)
        return
    assert "none of its layers attends through transformers' attention interface" in told
