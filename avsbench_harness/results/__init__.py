"""Run records, measurements of speed and memory, and reported values."""
