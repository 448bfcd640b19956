"""Arrays that are computed once and kept on disk."""
