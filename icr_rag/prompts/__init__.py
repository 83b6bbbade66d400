"""From texts to token ids, spans and query rows. Needs a tokenizer and no torch."""
