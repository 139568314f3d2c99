"""The run's own record: an append-only file of JSON lines that every view, a resume and later analysis read."""

from ww_callbacks.integrations.record.follower import Follower, Update
from ww_callbacks.integrations.record.format import DENSITY_NAME, RECORD_NAME, RecordError
from ww_callbacks.integrations.record.reader import RunRecord, find_runs, read_run
from ww_callbacks.integrations.record.writer import RecordSink, check_writable, claim, free_directory

__all__ = [
    "DENSITY_NAME",
    "RECORD_NAME",
    "Follower",
    "RecordError",
    "RecordSink",
    "RunRecord",
    "Update",
    "check_writable",
    "claim",
    "find_runs",
    "free_directory",
    "read_run",
]
