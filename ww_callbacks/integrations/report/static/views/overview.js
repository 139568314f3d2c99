// The verdicts in words and why, the alerts, the loss and the quantities over time, the status of the layers.

import { breakable, counted, element, part, refill, rich, select, shown, sign } from "../dom.js";
import { swatch } from "../plots.js";
import { worstFirst } from "../runs.js";
import { about } from "./about.js";
import { layerTable } from "./table.js";

const MOST_CARDS = 6;
const MOST_TABLES = 2;

export async function overview(app, panel) {
  // Taken now: both may be others' by the time that the server has answered.
  const { current, chosen } = app;
  const runs = chosen.map((name) => app.run(name));
  const words = runs.length > MOST_CARDS ? runsTable(app, runs) : element("div", { class: "cards" }, ...runs.map((run) => card(app, run)));
  const open = new Set([...part(panel, "cards").querySelectorAll("details[open]")].map((details) => details.dataset.run));
  refill(part(panel, "cards"), words);
  for (const details of part(panel, "cards").querySelectorAll("details")) details.open = open.has(details.dataset.run);
  const places = ["evidence", "controls", "alerts", "timeline", "table of"].map((name) => part(panel, name));
  app.timeControls(places[1], { notes: true });
  const tables = async () => {
    const several = runs.length > MOST_TABLES;
    if (!chosen.includes(app.tableOf)) app.tableOf = null; // the user has not chosen one of them
    const shownOf = app.tableOf ?? worstFirst(runs)[0].name;
    const tabled = several ? [app.run(shownOf)] : runs;
    const rows = await Promise.all(tabled.map((run) => app.source.layers(run.name)));
    if (!current()) return;
    refill(part(panel, "table of"), several
      ? element("div", { class: "controls" }, select("layers of", chosen, shownOf, (name) => { app.tableOf = name; return app.draw(); })) : "");
    const tables = part(panel, "tables");
    tabled.forEach((run, at) => layerTable(app, part(tables, `of ${at}`), run, rows[at], runs.length > 1));
    for (const more of [...tables.children].slice(tabled.length)) more.remove();
    about(app, part(panel, "about"), runs);
  };
  await Promise.all([
    app.plot(places[0], "evidence", { runs: chosen }),
    app.plot(places[2], "alerts", { runs: chosen, notes: app.notes }),
    app.plot(places[3], "timeline", { runs: chosen }),
    tables(),
  ]);
}

function card(app, run) {
  const { tone, title, text, advice, why } = run.headline;
  const where = run.epoch === null ? "no snapshot yet" : `epoch ${counted(run.epoch)}, ${counted(run.step)} steps done`;
  const line = app.chosen.length > 1 ? swatch(app.chosen.indexOf(run.name), app.state.style) : null;
  const inside = [why, run.alerted].filter(Boolean).map((part) => element("p", {}, ...rich(part)));
  return element("article", { class: `card ${tone}` },
    element("div", { class: "run" }, line, line ? " " : null, `${run.name}: ${where}${run.cost ? `, ${run.cost}` : ""}`),
    element("div", { class: "title" }, sign(tone), ` ${title}`),
    element("p", {}, ...rich(text)),
    advice ? element("p", { class: "advice" }, ...rich(advice)) : null,
    inside.length ? element("details", { "data-run": run.name }, element("summary", {}, "why"), ...inside) : null);
}

/** Many runs: one line each, the worst first. */
function runsTable(app, runs) {
  const losses = [...new Set(runs.flatMap((run) => Object.keys(run.losses)))].slice(0, 2);
  const settings = differing(runs);
  const heads = ["run", "verdict", "since epoch", "worst layer", ...losses.map((name) => name.replaceAll("_", " ")), ...settings];
  const rows = worstFirst(runs).map((run) => element("tr", { class: run.headline.tone },
    element("td", { class: "brief" }, swatch(app.chosen.indexOf(run.name), app.state.style), " ",
      element("button", { class: "plain", title: `show only ${run.name}`, onclick: () => app.chooseRuns([run.name]) }, run.name)),
    element("td", { title: run.headline.text }, sign(run.headline.tone), `\u00a0${run.headline.title}`),
    element("td", { class: "number" }, run.since === null ? "" : counted(run.since)),
    element("td", {}, run.worst ? element("button", { class: "plain", onclick: () => app.openLayer(run.name, run.worst) }, breakable(run.worst)) : ""),
    ...losses.map((name) => element("td", { class: "number" }, shown(run.losses[name]))),
    ...settings.map((name) => element("td", {}, run.settings[name] ?? "default"))));
  return element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "runs, the worst first" }, element("table", { class: "many" },
    element("thead", {}, element("tr", {}, ...heads.map((name, at) => element("th", { class: at === 2 || (at > 3 && at < 4 + losses.length) ? "number" : "" }, name)))),
    element("tbody", {}, ...rows)));
}

/** The settings that are not the same in all runs. */
function differing(runs) {
  const names = new Set(runs.flatMap((run) => Object.keys(run.settings)));
  return [...names].filter((name) => name !== "log_dir" && new Set(runs.map((run) => run.settings[name])).size > 1);
}
