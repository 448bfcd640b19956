"""The tests that every method passes; the tests of a plugin inherit them.

    from avsbench_harness.testing.method_suite import MethodSuite

    class TestMine(MethodSuite):
        method = Mine()
        options = {"dim": 32}  # a small network
        backbone = "resnet10t"

pytest collects the ``test_`` methods of the subclass. Every test covers all tasks of the method; a method
with several variants has a subclass for each. The class attributes of :class:`.base.SuiteBase` configure the
tests; a test that does not apply is skipped with the reason. The suite uses no pytest markers: tests that
take longer than seconds are listed in :attr:`MethodSuite.slow_tests`, for a ``conftest.py`` to mark them.
"""

from __future__ import annotations

from typing import ClassVar

from avsbench_harness.testing.method_suite.losses import LossTests
from avsbench_harness.testing.method_suite.outputs import OutputTests
from avsbench_harness.testing.method_suite.plugin import PluginTests
from avsbench_harness.testing.method_suite.training import TrainingTests

__all__ = ["MethodSuite"]


class MethodSuite(OutputTests, LossTests, TrainingTests, PluginTests):
    """All tests of a method; see the module's documentation."""

    #: Tests that take longer than seconds.
    slow_tests: ClassVar[frozenset[str]] = frozenset(
        {
            "test_losses_of_a_split_batch_average_to_those_of_the_whole",
            "test_channels_last_and_activation_checkpointing_keep_gradients",
            "test_compiled_model_has_the_same_losses_and_gradients",
            "test_a_few_steps_lower_the_loss",
            "test_interrupted_training_is_bitwise_reproducible",
        }
    )
