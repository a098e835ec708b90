"""From what users pass to checked batches."""
