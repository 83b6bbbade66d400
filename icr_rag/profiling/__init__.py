"""Find the layers and heads that rank best: readings, curves, head selection, plots."""
