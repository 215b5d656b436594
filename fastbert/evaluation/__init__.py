"""Evaluation beyond the loss: example predictions, probes, and human ratings."""
