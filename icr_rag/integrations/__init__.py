"""Adapters for frameworks. They hold no scoring logic."""
