// Any quantity of every layer at every epoch.

import { element, formula, part, select, tick } from "../dom.js";

export async function heatMap(app, panel) {
  const known = app.state.quantities[app.quantity];
  const controls = part(panel, "controls");
  if (!known) {
    controls.replaceChildren(element("p", { class: "empty" }, "No snapshot yet."));
    return;
  }
  const change = (name) => (value) => { app[name] = value; app.looked = true; return app.draw(); };
  const quantities = Object.entries(app.state.quantities).map(([name, { title }]) => [name, title === name ? name : `${title} (${name})`]);
  controls.replaceChildren(element("div", { class: "controls" },
    select("quantity", quantities, app.quantity, change("quantity")),
    tick("relative", "relative to epoch 0", app.relative, change("relative")),
    tick("notes", "notes", app.notes, change("notes"), "mark alerts that only inform, too"),
    app.clockControl(),
    element("span", { class: "definition" }, ...formula(known.definition)),
    !app.looked && app.first?.why ? element("span", { class: "hint" }, app.first.why) : null,
    element("span", { class: "definition" }, "First layer at the top. Click a cell to look inside that layer at that epoch."),
  ));
  const parameters = { runs: app.chosen, quantity: app.quantity, relative: app.relative };
  await app.plot(part(panel, "heat_map"), "heat_map", parameters, app.notes ? undefined : withoutNotes);
}

function withoutNotes(panels) {
  return panels.map((panel) => ({ ...panel, data: panel.data.filter((trace) => trace.meta?.severity !== "info") }));
}
