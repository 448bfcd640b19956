"""Tests of the plugin: recipes, errors and imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from avsbench_harness.errors import UsageError
from avsbench_harness.recipe.resolve import presets, resolve
from avsbench_harness.tasks import get_task
from avsbench_harness.testing.method_suite.base import SuiteBase


class PluginTests(SuiteBase):
    """Presets, unknown names, and the time to import the plugin."""

    def test_every_preset_is_a_valid_recipe(self) -> None:
        """For every task and backbone of the method; ``full`` and ``smoke`` are required."""
        assert {"full", "smoke"} <= set(presets(self.method))
        for preset in presets(self.method):
            for task in self._tasks:
                for backbone in self.method.backbones:
                    recipe = resolve(
                        self.method, get_task(task), backbone, variant=self._variant, preset=preset
                    )
                    assert recipe.source, f"{preset} of {task} with {backbone} has no source"

    def test_unknown_names_are_usage_errors(self) -> None:
        """An unknown variant, an unknown option, and weights with an unknown entry."""
        task = get_task(self._tasks[0])
        with pytest.raises(UsageError, match="no-variant"):
            self.method.build(task, self.backbone, variant="no-variant")
        with pytest.raises(UsageError, match="no_option"):
            self.method.build(task, self.backbone, variant=self._variant, no_option=1)
        with pytest.raises(UsageError):
            self.build(task).load_upstream({"no.parameter": torch.zeros(1)})

    def test_importing_the_plugin_does_not_import_torch(self) -> None:
        """``avsb methods`` imports every plugin and must be fast."""
        script = (
            "import sys; from pathlib import Path; from avsbench_harness.method import from_folder; "
            "from_folder(Path(sys.argv[1])); sys.exit('torch' in sys.modules)"
        )
        command = [sys.executable, "-c", script, str(self.method.folder)]
        assert subprocess.run(command, check=False).returncode == 0
