"""The JSON that clients of re-rankers send and read, one file per shape.

Each is a pydantic model of the request (`asked.Asked`) that turns itself into a
`icr_rag.server.call.RerankCall`, an answer into what its client reads, and a refusal into the error
that its client knows. Nothing here needs a web framework.

::

    standard.py   Cohere v1 and v2, Jina, vLLM, and all that copy them
    infinity.py   the same with documents given back as strings
    tei.py        Hugging Face text-embeddings-inference
    nvidia.py     NVIDIA NIM
    dashscope.py  Aliyun's DashScope
    choose.py     which of these a body is, where one path serves several
"""
