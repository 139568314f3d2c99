"""The record of a run: an append-only JSON Lines file, used by all views, by resuming and by later analysis."""

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
