"""Progress of a run: its identity, its steps and what it has published."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from pathlib import Path

from ww_callbacks.integrations.schema import Snapshot


@dataclass
class Progress:
    """Progress of a run.

    Attributes:
        directory: folder of the record.
        run_id: random identifier; it stays the same when the run is resumed.
        first_step: optimiser steps done when the run started.
        step: optimiser steps done at the last snapshot.
        last: the last snapshot published.
        published: model-level values by tag, each the most recent one.
        resumed: whether the run continues an earlier one.
        started: whether the first snapshot was requested.
        finished: whether the sinks are closed.
    """

    directory: Path
    run_id: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    first_step: int = 0
    step: int = 0
    last: Snapshot | None = None
    published: dict[str, float] = field(default_factory=dict)
    resumed: bool = False
    started: bool = False
    finished: bool = False
