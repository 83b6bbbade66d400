"""The model: loading, embedded weights, the attention tap, the forward pass."""
