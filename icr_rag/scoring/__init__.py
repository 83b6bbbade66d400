"""How one window of documents is scored."""
