// Panels as plotly figures in a grid that is as wide as the window.
//
// The height is held by the element, not by the layout, because plotly's resize deletes it there; and plotly gets
// copies, because it changes what it is given.

import { element, shown } from "./dom.js";
import { isDark, recoloured } from "./theme.js";

// Nothing of a run is sent to another host, so plotly's button that uploads a figure goes, too.
const CONFIG = { displaylogo: false, showSendToCloud: false, plotlyServerURL: "", modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"] };

const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    const width = Math.round(contentRect.width);
    if (width && target.drawnWidth && Math.abs(width - target.drawnWidth) > 1) {
      target.drawnWidth = width;
      Plotly.Plots.resize(target);
    }
  }
});

/** Draw `panels` into `place`, reusing the figures that are there, so that zoom and scroll stay. */
export async function drawPanels(place, panels, { view, table, clicked }) {
  place.classList.add("grid");
  panels = withOneKey(place, panels, table);
  while (place.children.length > panels.length) {
    sizes.unobserve(place.lastChild.querySelector(".plot"));
    Plotly.purge(place.lastChild.querySelector(".plot"));
    place.lastChild.remove();
  }
  for (const [at, panel] of panels.entries()) {
    if (!place.children[at]) place.append(frame());
    const figure = place.children[at];
    figure.classList.toggle("wide", panel.wide);
    caption(figure, panel, table);
    await drawPanel(figure.querySelector(".plot"), panel, view, table, clicked);
  }
}

/** What colours mean, said once above `place` where all panels say the same. */
function withOneKey(place, panels, table) {
  const same = panels.length > 1 && panels[0].key.length && panels.every((panel) => JSON.stringify(panel.key) === JSON.stringify(panels[0].key));
  let said = place.previousElementSibling;
  if (!said?.classList.contains("shared")) {
    if (!same) return panels;
    said = element("ul", { class: "key shared" });
    place.before(said);
  }
  said.replaceChildren(...(same ? patches(panels[0].key, table) : []));
  return same ? panels.map((panel) => ({ ...panel, key: [] })) : panels;
}

function frame() {
  return element("figure", { class: "panel" },
    element("figcaption", {}, element("span", { class: "name" }), element("ul", { class: "key" })),
    element("div", { class: "plot", role: "img" }));
}

function caption(figure, panel, table) {
  const [name, key] = figure.querySelector("figcaption").children;
  name.textContent = panel.title;
  name.title = panel.about;
  figure.querySelector("figcaption").hidden = !panel.title && !panel.key.length;
  const own = (colour) => (isDark() ? recoloured(colour, table, true) : colour);
  const lines = panel.legend ? panel.data.filter((trace) => trace.showlegend).map((trace) => element("li", {},
    trace.type === "bar" ? element("span", { class: "patch", style: `background:${own(trace.marker.color)}` }) : stroke(own(trace.line.color), trace.line.dash), " ", trace.name)) : [];
  key.replaceChildren(...patches(panel.key, table), ...lines);
  figure.querySelector(".plot").setAttribute("aria-label", [panel.title, panel.about, ...panel.key.map(([, text]) => text)].filter(Boolean).join(". "));
}

async function drawPanel(plot, panel, view, table, clicked) {
  const { height, ...layout } = structuredClone(panel.layout);
  const data = structuredClone(panel.data);
  plot.style.height = `${height}px`;
  plot.dataset.group = panel.group;
  const drawn = isDark() ? recoloured({ data, layout }, table) : { data, layout };
  drawn.layout.autosize = true;
  plot.drawnWidth = plot.clientWidth;
  await Plotly.react(plot, drawn.data, drawn.layout, { ...CONFIG, toImageButtonOptions: { format: "svg", filename: view } });
  // For the mouse: by the Tab key they would be seven stops a figure, within what is one picture for a screen reader.
  for (const button of plot.querySelectorAll(".modebar-btn")) button.tabIndex = -1;
  if (plot.listens) return;
  plot.listens = true;
  sizes.observe(plot);
  plot.on("plotly_click", (event) => clicked(event));
  plot.on("plotly_relayout", (change) => zoomTogether(plot, change));
}

/** What is zoomed across in one panel is zoomed so in all of its group. */
function zoomTogether(plot, change) {
  if (!plot.dataset.group || plot.following) return;
  const update = {};
  if ("xaxis.range[0]" in change) update["xaxis.range"] = [change["xaxis.range[0]"], change["xaxis.range[1]"]];
  else if (change["xaxis.autorange"]) update["xaxis.autorange"] = true;
  else return;
  const panels = plot.closest("[data-view]").querySelectorAll(`.plot[data-group="${plot.dataset.group}"]`);
  for (const other of panels) {
    if (other === plot || !other.layout) continue;
    other.following = true;
    Plotly.relayout(other, update).finally(() => { other.following = false; });
  }
}

/** A bar of colours with its numbers, and what other colours mean: for panels that share them. */
export function scale({ colorscale, cmin, cmax, colorbar }, key, table) {
  const shades = isDark() ? recoloured(colorscale, table, true) : colorscale;
  const stops = shades.map(([place, colour]) => `${colour} ${100 * place}%`);
  const numbers = colorbar.tickvals ?? [0, 0.25, 0.5, 0.75, 1].map((share) => cmin + share * (cmax - cmin));
  const ticks = numbers.map((value, at) => element("span", { style: `left:${(100 * (value - cmin)) / (cmax - cmin)}%` }, colorbar.ticktext?.[at] ?? shown(value)));
  const said = `colours from ${colorbar.ticktext?.[0] ?? shown(cmin)} to ${colorbar.ticktext?.at(-1) ?? shown(cmax)}`;
  return element("div", { class: "scale" },
    element("div", { class: "shades", role: "img", "aria-label": said, style: `background:linear-gradient(to right, ${stops.join(", ")})` }),
    element("div", { class: "ticks", "aria-hidden": "true" }, ...ticks),
    element("ul", { class: "key" }, ...patches(key, table)));
}

function patches(key, table) {
  const colour = (own) => (isDark() ? recoloured(own, table, true) : own);
  return key.map(([own, text]) => element("li", {}, own ? element("span", { class: "patch", style: `background:${colour(own)}` }) : null, text));
}

const STROKES = { solid: "", dash: "6 3", dot: "2 2", dashdot: "7 2 2 2", longdash: "11 3" };

/** A piece of a line. */
function stroke(colour, dash) {
  const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
  const image = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const looks = { x1: 0, y1: 4, x2: 22, y2: 4, "stroke-width": 3, stroke: colour, "stroke-dasharray": STROKES[dash] ?? "" };
  for (const [name, value] of Object.entries(looks)) line.setAttribute(name, value);
  for (const [name, value] of Object.entries({ width: 22, height: 8, class: "swatch", "aria-hidden": "true" })) image.setAttribute(name, value);
  image.append(line);
  return image;
}

/** A piece of the line that the run at `position` is drawn with. */
export function swatch(position, { colours, dashes, dark }) {
  const colour = colours[position % colours.length];
  const dash = dashes[(position + Math.floor(position / colours.length)) % dashes.length];
  return stroke(isDark() ? recoloured(colour, dark, true) : colour, dash);
}
