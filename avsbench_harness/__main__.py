"""``python -m avsbench_harness`` is ``avsb``."""

from avsbench_harness.cli import main

main()
