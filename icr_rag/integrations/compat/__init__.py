"""Replacements for other packages' re-rankers: the same names, constructors and return shapes."""
