from importlib.util import find_spec

# Programs that tests start in processes of their own; where DeepSpeed is missing, its own cannot even be imported to look
# for doctests.
collect_ignore = [] if find_spec("deepspeed") else ["zero_three.py"]
