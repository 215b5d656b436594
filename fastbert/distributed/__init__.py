"""Training on several ranks: collectives, and how the ranks share a model."""
