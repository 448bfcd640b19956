"""Run ``avsb`` as ``python -m avsbench_harness``."""

from avsbench_harness.cli import main

main()
