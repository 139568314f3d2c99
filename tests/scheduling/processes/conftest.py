from importlib.util import find_spec

# A program that a test starts in processes of its own: without DeepSpeed it cannot even be imported.
collect_ignore = [] if find_spec("deepspeed") else ["zero_three.py"]
