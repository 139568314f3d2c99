// The column of the runs: filter, folders, all, none, only this; each with its line and the verdict's sign.

import { element, part, refill, sign } from "./dom.js";
import { swatch } from "./plots.js";

/** The runs with the worst verdict first. */
export function worstFirst(runs) {
  const order = { bad: 0, watch: 1, open: 2, good: 3 };
  return [...runs].sort((a, b) => order[a.headline.tone] - order[b.headline.tone]);
}

/** Draw the column; `app.chosen` changes by what is ticked. */
export function drawRuns(app, place) {
  const runs = app.readable();
  place.hidden = !app.source.live || runs.length < 2;
  if (place.hidden) return;
  const box = part(place, "filter", "search");
  if (!box.firstChild) {
    box.append(
      element("input", { type: "search", placeholder: "filter runs (regex)", "aria-label": "filter runs, a regular expression", oninput: (event) => { app.filter = event.target.value; drawRuns(app, place); } }),
      element("button", { onclick: () => app.chooseRuns(filtered(app).map((run) => run.name)) }, "all"),
      element("button", { onclick: () => app.chooseRuns([]) }, "none"),
    );
  }
  const list = part(place, "list");
  const scrolled = list.scrollTop;
  const closed = new Set([...list.querySelectorAll("details:not([open])")].map((details) => details.dataset.folder));
  const folders = new Map();
  for (const run of filtered(app)) {
    const cut = run.name.lastIndexOf("/");
    const folder = cut < 0 ? "" : run.name.slice(0, cut);
    if (!folders.has(folder)) folders.set(folder, []);
    folders.get(folder).push(run);
  }
  refill(list, ...[...folders].map(([folder, inside]) => {
    const rows = inside.map((run) => row(app, run, folder ? run.name.slice(folder.length + 1) : run.name));
    if (!folder) return element("div", {}, ...rows);
    return element("details", { open: !closed.has(folder), "data-folder": folder }, element("summary", { title: folder }, folder), ...rows);
  }));
  if (!folders.size) list.append(element("p", { class: "definition" }, app.filterProblem || "No run matches."));
  list.scrollTop = scrolled;
}

function filtered(app) {
  app.filterProblem = "";
  if (!app.filter) return app.readable();
  try {
    const pattern = new RegExp(app.filter, "i");
    return app.readable().filter((run) => pattern.test(run.name));
  } catch {
    app.filterProblem = "That is no regular expression yet.";
    return [];
  }
}

function row(app, run, text) {
  const place = app.chosen.indexOf(run.name);
  const toggle = () => app.chooseRuns(place < 0 ? [...app.chosen, run.name] : app.chosen.filter((name) => name !== run.name));
  const box = element("input", { type: "checkbox", onchange: toggle, "data-run": run.name, "data-key": run.name });
  box.checked = place >= 0;
  const line = place >= 0 ? swatch(place, app.state.style) : element("span", { class: "swatch" });
  return element("div", { class: "run" },
    element("label", { title: `${run.name}: ${run.headline.title}` }, box, line, sign(run.headline.tone), element("span", { class: "name" }, text)),
    element("button", { class: "only", title: `show only ${run.name}`, "aria-label": `only ${run.name}`, onclick: () => app.chooseRuns([run.name]) }, "only"));
}
