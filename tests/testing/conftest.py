"""Marks the slow tests of the method suite."""

from __future__ import annotations

import pytest

from avsbench_harness.testing.method_suite import MethodSuite


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        suite = getattr(item, "cls", None)
        if suite is not None and issubclass(suite, MethodSuite) and item.name in suite.slow_tests:
            item.add_marker("slow")
