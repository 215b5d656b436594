"""The optimizers and their schedules."""
