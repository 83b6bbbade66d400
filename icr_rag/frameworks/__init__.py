"""Which documents meet in one prompt: choose windows and merge their rankings. No model code."""
