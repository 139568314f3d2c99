from importlib.util import find_spec

# A module that other tests import: without TRL it cannot even be imported.
collect_ignore = [] if find_spec("trl") else ["language.py"]
