"""Serving a reranker over HTTP and MCP: one engine, and the shapes that clients speak.

Nothing is imported here, so that a part can be had without the libraries of the others.
"""
