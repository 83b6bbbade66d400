"""Where document states are kept: in memory, on disk, in fewer bits. Knows nothing of models."""
