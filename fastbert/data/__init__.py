"""From files to packed, masked batches."""

from fastbert.data.loader import BatchLoader as BatchLoader
