"""Token shards to packed, masked batches."""
