"""Runs in the peers' environment: one JSON request a line, one JSON answer a line. Imports nothing of ours."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time

# WeightWatcher prints; the answers go out on a stream of their own.
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)

import numpy as np  # noqa: E402
import powerlaw  # noqa: E402
import torch  # noqa: E402
import weightwatcher  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

MODELS: dict[str, torch.nn.Module] = {}


def load(name: str, path: str) -> None:
    """Build one module a tensor: embeddings, convolutions by their four dimensions, the rest dense."""
    modules = torch.nn.ModuleDict()
    for key, tensor in load_file(path).items():
        if tensor.ndim == 4:
            module = torch.nn.Conv2d(tensor.shape[1], tensor.shape[0], tuple(tensor.shape[2:]), bias=False)
        elif "embeddings" in key:
            module = torch.nn.Embedding(*tensor.shape)
        else:
            module = torch.nn.Linear(tensor.shape[1], tensor.shape[0], bias=False)
        module.weight = torch.nn.Parameter(tensor)
        modules[key.replace(".", "/")] = module
    MODELS[name] = modules


def analyze(name: str, options: dict, layer: str = "", seed: int = 0) -> dict:
    """WeightWatcher's table of a model, or of one of its layers, and the seconds it took."""
    model = MODELS[name]
    if layer:
        model = torch.nn.ModuleDict({layer.replace(".", "/"): model[layer.replace(".", "/")]})
    np.random.seed(seed)
    watcher = weightwatcher.WeightWatcher(model=model, log_level=logging.CRITICAL)
    start = time.perf_counter()
    table = watcher.analyze(**options)
    seconds = time.perf_counter() - start
    rows = [{key: plain(value) for key, value in row.items()} for row in table.to_dict("records")]
    return {"seconds": seconds, "rows": [{**row, "layer": row["longname"].replace("/", ".")} for row in rows]}


def distances(name: str, other: str, method: str) -> dict:
    """WeightWatcher's distances between two models, by layer."""
    *_, table = weightwatcher.WeightWatcher(log_level=logging.CRITICAL).distances(
        MODELS[name], MODELS[other], method=method
    )
    return {row["longname"].replace("/", "."): plain(row["delta_W"]) for row in table.to_dict("records")}


def fit(values: list[float]) -> dict:
    """The fit of powerlaw, without its default bound α ≤ 3."""
    found = powerlaw.Fit(np.array(values), verbose=False, parameter_ranges={"alpha": [1.0, 1e6]})
    law = found.power_law
    return {"alpha": plain(law.alpha), "xmin": plain(found.xmin), "D": plain(law.D), "sigma": plain(found.sigma)}


def plain(value: object) -> object:
    """Strict JSON: NaN and infinity as null."""
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


DO = {"load": load, "analyze": analyze, "distances": distances, "fit": fit}

for line in sys.stdin:
    request = json.loads(line)
    try:
        answer = {"result": DO[request.pop("do")](**request)}
    except Exception as error:  # The other side raises it.
        answer = {"error": f"{type(error).__name__}: {error}"}
    answers.write(json.dumps(answer) + "\n")
    answers.flush()
