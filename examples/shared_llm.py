"""One set of weights for both: the LLM that writes the answer also re-ranks.

    python examples/shared_llm.py

`from_llm` takes LlamaIndex's HuggingFaceLLM, LangChain's HuggingFacePipeline or a transformers
model. No weight is copied, and what the LLM generates stays the same, bit for bit.
"""

from __future__ import annotations

from first_stage import QUESTION, llama_index_store
from llama_index.llms.huggingface import HuggingFaceLLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from icr_rag.integrations.llama_index import ICRRerank
from icr_rag.model.embedded import ensure_embedded_model


def main() -> None:
    folder = ensure_embedded_model("smollm2-135m")
    model = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    llm = HuggingFaceLLM(
        model=model,
        tokenizer=tokenizer,
        is_chat_model=True,
        context_window=4096,
        max_new_tokens=40,
        generate_kwargs={"do_sample": False},
        messages_to_prompt=lambda messages: tokenizer.apply_chat_template(
            [{"role": m.role.value, "content": m.content} for m in messages],
            tokenize=False,
            add_generation_prompt=True,
        ),
    )
    rerank = ICRRerank.from_llm(llm, top_n=2)
    engine = llama_index_store().as_query_engine(
        llm=llm, similarity_top_k=4, node_postprocessors=[rerank]
    )
    response = engine.query(QUESTION)
    for source in response.source_nodes:
        print(f"{source.score:.3f}  {source.metadata['name']}")
    print(f"answer: {' '.join(str(response).split())}")

    ours = {parameter.data_ptr() for parameter in rerank.reranker.engine.decoder.parameters()}
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    print(f"weights that are the re-ranker's own: {len(ours - theirs)}")


if __name__ == "__main__":
    main()
