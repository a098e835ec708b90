"""Checked batches from whatever users pass in."""
