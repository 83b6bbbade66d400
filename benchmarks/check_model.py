"""Does the library read your model's attention right? Compares with eager attention maps.

    python benchmarks/check_model.py                              # the embedded model
    python benchmarks/check_model.py path/to/gemma-3.gguf --tokens 800
    python benchmarks/check_model.py Qwen/Qwen3-0.6B --layers 10-13

Prints JSON: the largest difference between `Reranker.read_attention` and the maps that
transformers returns with ``output_attentions=True`` on the same token ids, in float32, for the
query and for the null query. Anything above 1e-5 is a bug: please report it.
"""

from __future__ import annotations

import argparse
import json

import torch
from latency import QUERY, machine, make_documents
from transformers import AutoModelForCausalLM

from icr_rag import Reranker
from icr_rag.model.loading import resolve_source


def largest_difference(model, token_ids, rows, layers, reading, columns) -> float:
    with torch.inference_mode():
        maps = model(torch.tensor([token_ids]), output_attentions=True, use_cache=False).attentions
    expected = torch.stack([maps[layer][0, :, rows].mean(dim=1) for layer in layers])
    return float((reading[..., :columns] - expected[..., :columns]).abs().max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--tokens", type=int, default=600, help="about how long the prompt is")
    parser.add_argument("--layers", default="all")
    arguments = parser.parse_args()
    reranker = Reranker(
        model=arguments.model, layers=arguments.layers, dtype="float32", device="cpu"
    )
    documents = make_documents(reranker.tokenizer, max(2, arguments.tokens // 110), 100)
    reading = reranker.read_attention(QUERY, documents)
    # The folder that a GGUF file or the embedded model was converted to, or the name as it is.
    eager = AutoModelForCausalLM.from_pretrained(
        resolve_source(reranker.config), attn_implementation="eager", dtype=torch.float32
    ).eval()
    last = max(span.end for span in reading.spans)
    ids, rows = reading.token_ids, reading.query_rows
    null_ids, null_rows = reading.null_token_ids, reading.null_query_rows
    config = eager.config.get_text_config(decoder=True)
    result = {
        "model": arguments.model,
        "type": config.model_type,
        "layers": reading.layers,
        "sliding_window": getattr(config, "sliding_window", None),
        "tokens": len(ids),
        "largest_difference_query": largest_difference(
            eager, ids, rows, reading.layers, reading.query, len(ids)
        ),
        "largest_difference_null": largest_difference(
            eager, null_ids, null_rows, reading.layers, reading.null, last
        ),
        "machine": machine(),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
