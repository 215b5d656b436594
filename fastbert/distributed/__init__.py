"""Several ranks: their world, sharded weights, weights in shared memory."""
