"""plotly.js, the charting library of the page: a copy in the package, so that nothing is fetched from another host.

It is the published bundle `plotly.js-cartesian-dist-min` of the version below, which contains the traces that the page
draws. At a third of the size of the whole library, it loads in a third of the time.
"""

from __future__ import annotations

from pathlib import Path

VERSION = "4.1.1"
SHA256 = "79542150855a52c567260e3137095dbe2b744e6d702a5cabe67da246942fba7a"
"""Hash of the uncompressed bundle; see CONTRIBUTING.md for how to replace it."""
FILE = Path(__file__).parent / "static" / "plotly" / "plotly-cartesian.min.js.gz"


def plotly_gzipped() -> bytes:
    """The script, compressed by gzip."""
    return FILE.read_bytes()
