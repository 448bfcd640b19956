"""The methods that ship with avsbench-harness, one self-contained folder each."""
