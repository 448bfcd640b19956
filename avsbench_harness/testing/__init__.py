"""Test utilities for methods: the tests that every method passes, and weights drawn by name."""

import pytest

# Failed assertions of the suite print their values, as those of test modules do.
pytest.register_assert_rewrite("avsbench_harness.testing.method_suite")
