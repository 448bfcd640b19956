"""The results as a static HTML site that works from the file system, without requests to other hosts.

Charts are SVG: those of one run are written by the templates, those that depend on a reader's choice by the
site's scripts. The charts have at most a few hundred marks, so that a charting library (Vega-Lite with its
runtime is 800 KB) would be most of the size of a page; SVG follows the colour scheme of the page through CSS,
its text is text, and its points are links that the keyboard reaches.

Everything that comes from records, submissions and data sets is untrusted: templates escape it, data files
contain it as JSON, and the scripts insert it as text only. Files are named by hashes.
"""

from __future__ import annotations

from avsbench_harness.leaderboard.site.build import build_site
from avsbench_harness.leaderboard.site.pages import page_name
from avsbench_harness.leaderboard.site.run_inputs import FindData

__all__ = ["FindData", "build_site", "page_name"]
