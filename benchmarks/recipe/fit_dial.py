"""Fit fastbert.training.dial's curves to dial.jsonl: python benchmarks/recipe/fit_dial.py."""
