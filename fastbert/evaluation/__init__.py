"""What a model knows: examples, probes, and ratings by people."""
