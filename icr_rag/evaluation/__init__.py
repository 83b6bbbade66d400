"""Measure rerankers: BEIR data, TREC runs, ir-measures, an evaluation that can be resumed."""
