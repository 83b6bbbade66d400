"""Memory of re-ranking beside an LLM that is loaded anyway, and whether it disturbs it.

    python benchmarks/shared_llm.py

Each case in a fresh process, peak resident memory, JSON on stdout:

- generation: the embedded LLM generates;
- shared: the same, and re-ranks 20 documents of about 100 tokens on the same weights (`from_llm`);
- separate: the same, with a second copy of the weights for re-ranking, which loads no layer above
  the last one read.

Layers are those of the default settings. The tokens that are generated after re-ranking are
compared with those generated without. Linux only (reads /proc).
"""

from __future__ import annotations

import json
import subprocess
import sys

import torch  # noqa: F401  (hardware() tells its threads once it is imported)

from icr_rag.evaluation.environment import hardware, versions

_CHILD = """
import sys
sys.path.insert(0, {folder!r})
import hashlib, json
import torch
from latency import QUERY, make_documents
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline
from icr_rag import Reranker
from icr_rag.integrations._llm import unwrap_llm
from icr_rag.model.embedded import ensure_embedded_model

folder = ensure_embedded_model()
generator = pipeline("text-generation", model=AutoModelForCausalLM.from_pretrained(
    folder, dtype=torch.float32), tokenizer=AutoTokenizer.from_pretrained(folder))

def generate(seed):
    torch.manual_seed(seed)
    ids = generator.tokenizer(QUERY, return_tensors="pt")
    tokens = generator.model.generate(**ids, max_new_tokens=40, do_sample=seed > 0)
    with torch.no_grad():
        logits = generator.model(**ids).logits
    return hashlib.sha256(tokens.numpy().tobytes() + logits.numpy().tobytes()).hexdigest()

case, told = {case!r}, {{}}
before = [generate(seed) for seed in (0, 1)]
if case != "generation":
    reranker = (Reranker.from_model(*unwrap_llm(generator)) if case == "shared"
                else Reranker(dtype="float32", device="cpu"))
    usage = reranker.rank(QUERY, make_documents(generator.tokenizer, 20, 100)).usage
    told = {{"tokens": usage.tokens, "layers": usage.layers}}
after = [generate(seed) for seed in (0, 1)]
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({{
    "peak_mb": round(peak / 1024), "same": before == after, "hash": before, **told}}))
"""


def measure(case: str) -> dict:
    code = _CHILD.format(folder=__file__.rpartition("/")[0], case=case)
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return json.loads(outcome.stdout.splitlines()[-1])


def main() -> None:
    cases = {case: measure(case) for case in ("generation", "shared", "separate")}
    hashes = {tuple(case.pop("hash")) for case in cases.values()}
    base = cases["generation"]["peak_mb"]
    result = {
        **cases,
        "more_than_generation_mb": {
            case: cases[case]["peak_mb"] - base for case in ("shared", "separate")
        },
        "generation_is_bit_identical": len(hashes) == 1
        and all(case["same"] for case in cases.values()),
        "versions": versions(),
        "hardware": hardware(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
