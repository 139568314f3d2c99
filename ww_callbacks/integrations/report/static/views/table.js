// The status of the layers: the worst first, sorted by a click, filtered by a word, experts folded into one row.

import { breakable, element, part, refill, shown, sign } from "../dom.js";

const COLUMNS = ["alpha", "log_spectral_norm", "effective_rank", "relative_distance_from_init", "scale_collapse", "relative_update_norm"];
const SEVERITIES = { critical: 0, warning: 1, info: 2, "": 3 };
const EXPERT = /(^|[./])(experts?)([./_])(\d+)(?=[./]|$)/;

export function layerTable(app, place, run, rows, named) {
  const state = (app.tables[run.name] ??= { sort: null, down: false, filter: "", open: new Set() });
  const columns = COLUMNS.filter((name) => run.quantities.includes(name));
  const alerts = rows.filter((row) => row.severity && row.severity !== "info").length;
  const notes = rows.filter((row) => row.severity === "info").length;
  const count = `${alerts ? `${alerts} of ${rows.length}` : `none of ${rows.length}`} with an alert${notes ? `, ${notes} with a note` : ""}`;
  part(place, "title", "h2").textContent = `Layers now${named ? ` in ${run.name}` : ""}: ${count}`;
  const again = () => layerTable(app, place, run, rows, named);
  const find = part(place, "find");
  if (rows.length > 12 && !find.firstChild) {
    find.append(element("input", { type: "search", placeholder: "filter layers", "aria-label": "filter layers", oninput: (event) => { state.filter = event.target.value; again(); } }));
  }
  const kept = folded(rows.filter((row) => row.layer.toLowerCase().includes(state.filter.toLowerCase())), state, columns);
  const lines = sorted(kept, state);
  const sortBy = (name) => () => {
    state.down = state.sort === name ? !state.down : name !== "layer";
    state.sort = name;
    again();
  };
  const head = [["layer", "layer", ""], ["standing", "standing", ""], ...columns.map((name) => [name, app.state.quantities[name]?.title ?? name, app.state.quantities[name]?.definition ?? ""])]
    .map(([name, title, about], at) => element("th", {
      class: at > 1 ? "number" : "", title: about, "aria-sort": state.sort === name ? (state.down ? "descending" : "ascending") : null,
    }, element("button", { class: "plain", "data-key": name, onclick: sortBy(name) }, title, state.sort === name ? (state.down ? " ▾" : " ▴") : "")));
  const box = part(place, "rows");
  const at = [box.scrollTop, box.scrollLeft];
  box.className = "scroll";
  box.tabIndex = 0;
  box.setAttribute("role", "region");
  box.setAttribute("aria-label", `layers${named ? ` of ${run.name}` : ""}`);
  refill(box, element("table", { class: "layers" },
    element("thead", {}, element("tr", {}, ...head)),
    element("tbody", {}, ...lines.map((row) => line(app, run, row, columns, state, again)))));
  [box.scrollTop, box.scrollLeft] = at;
}

function line(app, run, row, columns, state, again) {
  const cells = columns.map((name) => {
    if (row.inside) return element("td", { class: "number" }, row.ranges[name]);
    const unsure = !row.sure && name === "alpha" && row.values[name] !== null;
    return element("td", { class: `number${unsure ? " unsure" : ""}` }, words(row, name));
  });
  const fold = () => { state.open[state.open.has(row.layer) ? "delete" : "add"](row.layer); again(); };
  const open = row.inside ? fold : () => app.openLayer(run.name, row.layer);
  const name = element("button", { class: "plain", "data-key": row.layer, "aria-expanded": row.inside ? String(state.open.has(row.layer)) : null }, row.inside ? `${state.open.has(row.layer) ? "▾" : "▸"}\u00a0` : "", breakable(row.layer), row.inside ? ` (${row.inside.length})` : "");
  return element("tr", { class: `link ${row.severity}`, onclick: open },
    element("td", { class: row.folded ? "folded" : "" }, name), element("td", {}, sign(row.severity), ` ${row.words}`), ...cells);
}

/** The value of a layer, with its error where it has one. */
function words(row, name) {
  return row.texts[name] ?? shown(row.values[name]);
}

/** The rows with the experts of a block in one, with their range and the worst standing. */
function folded(rows, state, columns) {
  const groups = new Map();
  for (const row of rows) {
    const name = row.layer.replace(EXPERT, "$1$2$3*");
    if (!groups.has(name)) groups.set(name, []);
    groups.get(name).push(row);
  }
  return [...groups].flatMap(([layer, inside]) => {
    if (inside.length < 2 || !layer.includes("*")) return inside;
    const worst = inside.reduce((a, b) => (SEVERITIES[b.severity] < SEVERITIES[a.severity] ? b : a));
    const ranges = {};
    const values = {};
    for (const name of columns) {
      const known = inside.filter((row) => row.values[name] !== null && row.values[name] !== undefined)
        .sort((a, b) => a.values[name] - b.values[name]);
      const ends = [...new Set([known[0], known.at(-1)].filter(Boolean).map((row) => words(row, name)))];
      ranges[name] = ends.join(" to ") || "–";
      values[name] = known.at(-1)?.values[name] ?? null;
    }
    const group = { ...worst, layer, inside, ranges, values, depth: inside[0].depth, words: worst.severity ? `${worst.layer}: ${worst.words}` : worst.words };
    return state.open.has(layer) ? [group, ...inside.map((row) => ({ ...row, folded: true }))] : [group];
  });
}

/** By severity, then depth; or by the column that was clicked, what is missing last. */
function sorted(rows, { sort, down }) {
  if (sort === null) return [...rows].sort((a, b) => SEVERITIES[a.severity] - SEVERITIES[b.severity] || a.depth - b.depth);
  const value = { layer: (row) => row.depth, standing: (row) => -SEVERITIES[row.severity] }[sort] ?? ((row) => row.values[sort]);
  const missing = (row) => value(row) === null || value(row) === undefined;
  return [...rows].sort((a, b) => missing(a) - missing(b) || (down ? -1 : 1) * (value(a) - value(b)) || a.depth - b.depth);
}
