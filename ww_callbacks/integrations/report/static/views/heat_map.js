// Any quantity of every layer at every epoch.

import { element, formula, part, refill, select, tick } from "../dom.js";
import { scale } from "../plots.js";

export async function heatMap(app, panel) {
  const known = app.state.quantities[app.quantity];
  const controls = part(panel, "controls");
  if (!known) {
    controls.replaceChildren(element("p", { class: "empty" }, "No snapshot yet."));
    return;
  }
  const change = (name) => (value) => { app[name] = value; app.looked = true; return app.draw(); };
  const quantities = Object.entries(app.state.quantities).map(([name, { title }]) => [name, title === name ? name : `${title} (${name})`]);
  refill(controls, element("div", { class: "controls" },
    select("quantity", quantities, app.quantity, change("quantity")),
    tick("relative", "relative to epoch 0", app.relative, change("relative")),
    tick("notes", "notes", app.notes, change("notes"), "mark alerts that only inform, too"),
    app.clockControl(),
    element("span", { class: "definition" }, ...formula(known.definition)),
    !app.looked && app.first?.why ? element("span", { class: "hint" }, app.first.why) : null,
    element("span", { class: "definition" }, "First layer at the top. Click a cell to look inside that layer at that epoch."),
  ));
  const parameters = { runs: app.chosen, quantity: app.quantity, relative: app.relative };
  const place = part(panel, "scale");
  const shared = (panels) => withOneScale(app.notes ? panels : withoutNotes(panels), place, app.state.style.dark);
  await app.plot(part(panel, "heat_map"), "heat_map", parameters, shared);
}

const BAR = 38; // pixels that a panel has for its own bar of colours: TOP in heat_map.py less a bare margin

/** Several panels have one scale: its bar and what colours mean are said once, in `place`. */
function withOneScale(panels, place, table) {
  const coloured = panels.filter((panel) => panel.layout.coloraxis);
  if (coloured.length < 2) {
    place.replaceChildren();
    return panels;
  }
  const key = new Map(coloured.flatMap((panel) => panel.key).filter(([colour]) => colour).map(([colour, text]) => [text, colour]));
  place.replaceChildren(scale(coloured[0].layout.coloraxis, [...key].map(([text, colour]) => [colour, text]), table));
  return panels.map((panel) => {
    if (!panel.layout.coloraxis) return panel;
    const { coloraxis, height, margin } = panel.layout;
    const layout = { ...panel.layout, height: height - BAR, margin: { ...margin, t: margin.t - BAR }, coloraxis: { ...coloraxis, showscale: false } };
    return { ...panel, key: panel.key.filter(([colour]) => !colour), layout };
  });
}

function withoutNotes(panels) {
  return panels.map((panel) => ({ ...panel, data: panel.data.filter((trace) => trace.meta?.severity !== "info") }));
}
