"""The official AVSBench layouts: tables, directory trees, readers and checks."""
