"""What `Reranker` does when it is called: rank, rank many, encode, read attention."""
