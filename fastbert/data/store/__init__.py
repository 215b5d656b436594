"""Documents to token shards on disk."""
