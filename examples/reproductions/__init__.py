"""Published results, reproduced at a size that two cores manage: ``python -m examples.reproductions.NAME``.

Each script writes its tables (``results/NAME.md``), numbers (``results/NAME.json``) and figures. With ``--quick`` it
runs in a few seconds on smaller data and writes only where ``--out`` says.
"""
