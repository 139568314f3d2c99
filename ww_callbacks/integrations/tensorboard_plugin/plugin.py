"""The plugin's routes; TensorBoard finds it through the entry point ``tensorboard_plugins``."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tensorboard.backend import http_util
from tensorboard.plugins import base_plugin
from werkzeug import wrappers

from ww_callbacks.integrations.figures.run_view import RunView
from ww_callbacks.integrations.report.describe import describe_layers, describe_page, describe_run
from ww_callbacks.integrations.report.packing import pack
from ww_callbacks.integrations.report.page import MODULES, STATIC, joined
from ww_callbacks.integrations.report.plotly_script import plotly_gzipped
from ww_callbacks.integrations.report.view import VIEWS, draw
from ww_callbacks.integrations.tensorboard_plugin.runs import READING, LiveRun, LiveRuns

OWN = Path(__file__).parent / "static"
FILES = {
    "/index.js": (OWN / "index.js", "text/javascript"),
    "/style.css": (STATIC / "style.css", "text/css"),
}
DAY = 86_400

NO_RECORD = """No record of a run was found in {folders}.

Train with a spectral callback whose log folder is there (or give TensorBoard that folder as --logdir): it writes \
spectral.jsonl, and this page updates automatically."""
NOT_LOCAL = "TensorBoard was started without a local log folder (--logdir) from which to read the records."


class SpectraPlugin(base_plugin.TBPlugin):
    """The tab SPECTRA. Reads the records in the log folder, because TensorBoard samples data of unknown plugins."""

    plugin_name = "spectra"

    def __init__(self, context: base_plugin.TBContext) -> None:
        """Get the log folder from TensorBoard's ``context``."""
        super().__init__(context)
        self._runs = LiveRuns(_folders(context.logdir, getattr(context.flags, "logdir_spec", "") or ""))

    def get_plugin_apps(self) -> dict[str, Callable[..., Any]]:
        """The routes, relative to the plugin's route."""
        self._runs.start()
        answers = {
            **dict.fromkeys(FILES, self._static),
            "/page.js": self._page,
            "/plotly.js": self._plotly,
            "/state": self._state,
            "/figure": self._figure,
            "/layers": self._layers,
        }
        return {route: wrappers.Request.application(answer) for route, answer in answers.items()}

    def is_active(self) -> bool:
        """Whether there is any record; otherwise the tab is inactive and explains what to do."""
        return len(self._runs) > 0

    def frontend_metadata(self) -> base_plugin.FrontendMetadata:
        """The entry page. It refreshes itself, without TensorBoard's reload."""
        return base_plugin.FrontendMetadata(es_module_path="/index.js", tab_name="Spectra", disable_reload=True)

    def _static(self, request: wrappers.Request) -> wrappers.Response:
        path, kind = FILES[request.path.partition(f"/plugin/{self.plugin_name}")[2]]
        return http_util.Respond(request, path.read_bytes(), kind)

    def _page(self, request: wrappers.Request) -> wrappers.Response:
        """The page's modules as one, so that the browser need not ask for one after the other."""
        return http_util.Respond(request, joined(MODULES), "text/javascript")

    def _plotly(self, request: wrappers.Request) -> wrappers.Response:
        return http_util.Respond(request, plotly_gzipped(), "text/javascript", content_encoding="gzip", expires=DAY)

    def _state(self, request: wrappers.Request) -> wrappers.Response:
        runs = self._runs.current()
        version = _version(runs)
        if request.args.get("version") == version:
            return _json(request, {"version": version, "unchanged": True})
        readable = [(run, view) for run in runs if (view := run.view) is not None]
        latest = sorted(readable, key=lambda pair: pair[0].changed, reverse=True)
        return _json(
            request,
            {
                "version": version,
                "message": self._message(runs),
                "reading": any(run.problem == READING for run in runs),
                "latest": [run.name for run, _ in latest],
                **describe_page([view for _, view in readable]),
                "runs": [_described(run) for run in runs],
            },
        )

    def _message(self, runs: list[LiveRun]) -> str:
        """The message of the page if there is nothing to show."""
        if not self._runs.folders:
            return NOT_LOCAL
        if not runs:
            return NO_RECORD.format(folders=" and ".join(map(str, self._runs.folders.values())))
        if any(run.view is not None for run in runs):
            return ""
        return "Reading the records …" if any(run.problem == READING for run in runs) else "No record can be read."

    def _figure(self, request: wrappers.Request) -> wrappers.Response:
        view = request.args.get("view", "")
        if view not in VIEWS:
            return _json(request, {"error": f"expected `view` to be one of {VIEWS}, got {view!r}"}, code=400)
        runs = self._chosen(request.args.getlist("run"))
        with contextlib.ExitStack() as held:
            for run, _ in runs[:1]:
                held.enter_context(run.lock)
            figure = draw(
                view,
                [chosen for _, chosen in runs],
                quantity=request.args.get("quantity", "alpha"),
                layer=request.args.get("layer", ""),
                epoch=request.args.get("epoch", type=float),
                relative=request.args.get("relative") == "true",
                notes=request.args.get("notes") == "true",
            )
        return _json(request, figure)

    def _layers(self, request: wrappers.Request) -> wrappers.Response:
        runs = self._chosen(request.args.getlist("run"))
        return _json(request, describe_layers(runs[0][1]) if runs else [])

    def _chosen(self, names: Iterable[str]) -> list[tuple[LiveRun, RunView]]:
        """The existing runs of these names: only runs found below the log folder can be requested."""
        known = {run.name: run for run in self._runs.current(0)}
        chosen = [known[name] for name in names if name in known]
        return [(run, view) for run in chosen if (view := run.view) is not None]


def _described(run: LiveRun) -> dict[str, Any]:
    view = run.view
    if view is None:
        return {"name": run.name, "problem": run.problem, "notes": []}
    described = describe_run(view)
    if run.problem:
        described["notes"].append(f"The rest could not be read: {run.problem}")
    return {**described, "problem": ""}


def _version(runs: Iterable[LiveRun]) -> str:
    """A string that changes when any run does."""
    parts = "\n".join(f"{run.name}\t{run.version}\t{id(run)}" for run in runs)
    return hashlib.blake2b(parts.encode(), digest_size=8).hexdigest()


def _json(request: wrappers.Request, value: Any, code: int = 200) -> wrappers.Response:
    return http_util.Respond(request, pack(value), "application/json", code=code)


def _folders(logdir: str, spec: str) -> dict[str, Path]:
    """The local folders with which TensorBoard was started: ``--logdir``, or ``--logdir_spec name:path,name:path``."""
    if logdir:
        return {} if "://" in logdir else {"": Path(logdir).expanduser().absolute()}
    folders = {}
    for part in filter(None, spec.split(",")):
        name, colon, path = part.partition(":")
        if colon and path.startswith("//"):  # gs://…
            continue
        folders[name if colon else ""] = Path(path if colon else name).expanduser().absolute()
    return folders
