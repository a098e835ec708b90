"""Turn what users pass in into checked batches."""
