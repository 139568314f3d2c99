"""A fit in child processes, for test_models: prints what the parent's callback finds of it.

python -m tests.lightning.spawned FOLDER STRATEGY DEVICES
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tests.adapters.nets import fit, seeded
from ww_callbacks.lightning import SpectralCallback


def main(folder: Path, strategy: str, devices: int) -> None:
    found = []
    callback = SpectralCallback(log_dir=str(folder / "record"), verbose=0, policies={"non-finite": "log"})
    for epochs in (2, 3):
        fit(seeded(), callback, strategy=strategy, devices=devices, epochs=epochs)
        assert callback.verdict is not None
        found.append(
            {
                "directory": str(callback.directory),
                "steps": callback.summary["step"].unique().tolist()[-1],
                "layers": callback.history["layer"].nunique(),
                "verdict": callback.verdict.state,
                "alerts": len(callback.alerts),
                "html": "healthy" in callback._repr_html_() or callback.verdict.state in callback._repr_html_(),
            }
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
