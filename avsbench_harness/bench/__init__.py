"""Speed, memory and cost of methods."""
