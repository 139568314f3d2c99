// Inside one layer: its standing, its spectrum at an epoch, its quantities over time.

import { counted, element, part, refill, rich, select, sign } from "../dom.js";
import { swatch } from "../plots.js";

export async function oneLayer(app, panel) {
  if (!app.chosen.includes(app.layerRun)) app.layerRun = app.chosen[0];
  const layers = app.run(app.layerRun)?.layers ?? [];
  if (!layers.includes(app.layer)) app.layer = layers[0] ?? null;
  controls(app, part(panel, "controls"), layers);
  if (app.layer === null) return;
  for (const name of ["standing", "spectrum", "slider", "missing", "time", "lines"]) part(panel, name); // in this order
  // Where no column of runs says which line is which.
  const lines = app.source.live || app.chosen.length < 2 ? [] : app.chosen.map((name, at) => element("li", {}, swatch(at, app.state.style), " ", name));
  part(panel, "lines").replaceChildren(element("ul", { class: "key shared" }, ...lines));
  app.timeControls(part(panel, "time"), {});
  await Promise.all([
    standing(app, part(panel, "standing")),
    spectrum(app, panel),
    app.plot(part(panel, "history"), "history", { runs: app.chosen, layer: app.layer }),
  ]);
}

function controls(app, place, layers) {
  const go = (layer) => { app.layer = layer; app.picked = true; return app.draw(); };
  const at = layers.indexOf(app.layer);
  const find = element("input", { type: "search", name: "layer", list: "layers", size: 44, value: app.layer ?? "", autocomplete: "off",
    onfocus: (event) => event.target.select(),
    onchange: (event) => {
      const wanted = event.target.value.trim().toLowerCase();
      const found = layers.find((layer) => layer.toLowerCase() === wanted) ?? layers.find((layer) => wanted && layer.toLowerCase().includes(wanted));
      event.target.value = found ?? app.layer;
      if (found) go(found);
    } });
  const others = app.chosen.filter((name) => name !== app.layerRun && app.run(name).layers.includes(app.layer));
  if (!others.includes(app.over)) app.over = "";
  // A name that is being typed stays while the page refreshes.
  if (place.contains(document.activeElement) && document.activeElement.name === "layer" && document.activeElement.value !== app.layer) return;
  refill(place, element("div", { class: "controls" },
    app.chosen.length > 1 ? select("run", app.chosen, app.layerRun, (value) => { app.layerRun = value; app.picked = true; return app.draw(); }) : null,
    element("label", {}, "layer ", find),
    element("datalist", { id: "layers" }, ...layers.map((layer) => element("option", { value: layer }))),
    element("button", { onclick: () => go(layers[at - 1]), disabled: at <= 0 }, "previous"),
    element("button", { onclick: () => go(layers[at + 1]), disabled: at >= layers.length - 1 }, "next"),
    element("span", {}, `layer ${at + 1} of ${layers.length}`),
    others.length ? select("with the spectrum of", [["", "no other run"], ...others], app.over, (value) => { app.over = value; return app.draw(); }) : null));
}

/** The status of the layer, and its alerts. */
async function standing(app, place) {
  const { current, layer } = app;
  const run = app.run(app.layerRun);
  const rows = await app.source.layers(run.name);
  if (!current()) return;
  const row = rows.find((candidate) => candidate.layer === layer);
  const alerts = run.alerts.filter((alert) => alert.layers.includes(layer)).reverse();
  place.className = `card ${{ critical: "bad", warning: "watch" }[row?.severity] ?? "open"}`;
  place.replaceChildren(
    element("p", {}, sign(row?.severity ?? ""), " ", element("b", {}, row?.words ?? "not measured"), run.about_layer?.[layer] ?? ""),
    ...alerts.slice(0, 3).map((alert) => element("p", {}, sign(alert.severity), ` epoch ${counted(alert.epoch)}: `, ...rich(alert.message))));
}

/** The spectrum at the chosen epoch, or at the last one while none is; a slider goes through all. */
async function spectrum(app, panel) {
  const sliders = part(panel, "slider");
  const parameters = { runs: [app.layerRun], layer: app.layer, epoch: app.epoch };
  const other = app.over ? app.source.figure("spectrum", { ...parameters, runs: [app.over] }) : null;
  const change = async (panels) => (other ? [overlaid(panels[0], (await other)[0], app.over), ...panels.slice(1)] : panels);
  const panels = await app.plot(part(panel, "spectrum"), "spectrum", parameters, change);
  if (!panels) return;
  const { epochs, at, missing } = panels[0]?.layout.meta ?? { epochs: [], at: 0, missing: "" };
  if (!sliders.firstChild) {
    app.slider = element("input", { type: "range", min: 0, step: 1, "aria-label": "epoch", oninput: () => moved(app, panel) });
    app.sliderText = element("output");
    sliders.append(element("label", { class: "slider" }, "epoch ", app.slider, app.sliderText));
  }
  sliders.hidden = epochs.length < 2;
  app.epochs = epochs;
  app.slider.max = Math.max(epochs.length - 1, 0);
  app.slider.value = at;
  app.slider.setAttribute("aria-valuetext", epochs.length ? `epoch ${counted(epochs[at])}` : "no epoch");
  app.sliderText.value = epochs.length ? `${counted(epochs[at])} of ${counted(epochs.at(-1))}` : "";
  part(panel, "missing").replaceChildren(element("p", { class: "definition" }, missing ?? ""));
}

/** The density of another run over that of this one, as a line. */
function overlaid(panel, other, name) {
  const bars = other.data.find((trace) => trace.meta?.role === "density");
  if (!bars) return panel;
  const line = { type: "scatter", mode: "lines", x: bars.x, y: bars.y, name, showlegend: true,
    line: { color: "#882255", width: 2, shape: "hv" }, hovertemplate: `λ from %{x:.4g}<br>density %{y:.3g}<extra></extra>` };
  return { ...panel, data: [...panel.data, line] };
}

/** The slider was moved: draw that epoch, and of those passed over meanwhile only the last. */
async function moved(app, panel) {
  const at = Number(app.slider.value);
  // At the right end the view follows the training.
  app.epoch = at === app.epochs.length - 1 ? null : app.epochs[at];
  if (app.moving) return;
  app.moving = true;
  try {
    let drawn;
    do {
      drawn = app.epoch;
      await spectrum(app, panel);
    } while (app.epoch !== drawn);
    app.remember();
  } finally {
    app.moving = false;
  }
}
