"""Files on disk -> Clip -> Batch."""
