// The report's source: everything is in this file, compressed, and unpacked when it is first looked at. This text
// follows app.js in one module.

import { start } from "./app.js";

const MOST_PATHS = 3; // the footer has all

const unpacked = new Map();

function inflated(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip")));
}

/** A part of the file: JSON, and behind it the numbers of its arrays, as `compact` in packing.py writes them. */
async function readPart(id) {
  const bytes = new Uint8Array(await inflated(id).arrayBuffer());
  const [length, shift] = new Uint32Array(bytes.buffer, 0, 2);
  const numbers = floats(bytes.subarray(8 + length), shift);
  const text = new TextDecoder().decode(bytes.subarray(8, 8 + length));
  return JSON.parse(text, (_, item) => (item?.floats === undefined ? item : arrayOf(item, numbers)));
}

/** All numbers of a part. */
function floats(planes, shift) {
  const count = planes.length / 3;
  const whole = new Uint32Array(count);
  let sum = 0;
  for (let at = 0; at < count; at += 1) {
    sum = (sum + (planes[at] | (planes[count + at] << 8) | (planes[2 * count + at] << 16))) & 0xffffff;
    whole[at] = sum << shift;
  }
  return new Float32Array(whole.buffer);
}

/** The array that begins at `first`, or its rows where it has some. */
function arrayOf({ floats: first, count, rows }, numbers) {
  if (!rows) return numbers.slice(first, first + count);
  const width = count / rows;
  return Array.from({ length: rows }, (_, row) => numbers.slice(first + row * width, first + (row + 1) * width));
}

function unpack(id) {
  if (!unpacked.has(id)) unpacked.set(id, readPart(id));
  return unpacked.get(id);
}

const state = await unpack("state");
const runNumber = (name) => state.runs.findIndex((run) => run.name === name);
const heatMapOf = (quantity) => unpack(`heat_map/${Object.keys(state.quantities).indexOf(quantity)}`);

/** The traces of a run's values in a heat map, by part. */
function cellsOf(panels, run) {
  const traces = panels.flatMap((panel) => panel.data).filter((trace) => trace.meta?.role === "layers" && trace.meta.run === run);
  return Object.fromEntries(traces.map((trace) => [trace.meta.part, trace]));
}

/** The values of a row, sure or not. */
function anyOf(cells, row) {
  const unsure = cells.unsure?.z[row];
  return cells.sure.z[row].map((value, at) => (Number.isNaN(value) && unsure ? unsure[at] : value));
}

/** The heat map relative to each layer's first value: its values are reckoned from those of the one that is not. */
async function relativeHeatMap(quantity) {
  const panels = await heatMapOf(quantity);
  const relative = await unpack(`heat_map/${Object.keys(state.quantities).indexOf(quantity)}/relative`);
  return relative.map((panel) => ({ ...panel, data: panel.data.map((trace) => {
    if (trace.z || trace.type !== "heatmap") return trace;
    const cells = cellsOf(panels, trace.meta.run);
    const { z, text } = cells[trace.meta.part];
    const against = z.map((values, row) => {
      const first = anyOf(cells, row).find(Number.isFinite) ?? NaN;
      return values.map((value) => (trace.meta.by === "difference" ? value - first : first > 0 ? value / first : NaN));
    });
    return { text, ...trace, z: against };
  }) }));
}

/** The quantities of a layer over time: the rows of the heat maps. */
async function historyOf(layer) {
  const frame = await unpack("history");
  return Promise.all(frame.map(async (panel) => ({ ...panel, data: (await Promise.all(panel.data.map((trace) => filled(trace, layer)))).flat() })));
}

/** A trace of the history with its values; none where it would be empty. */
async function filled(trace, layer) {
  const { run, quantity, part } = trace.meta;
  const cells = cellsOf(await heatMapOf(quantity), run);
  const row = cells.sure ? cells.sure.meta.layers.indexOf(layer) : -1;
  if (row < 0) return [];
  const { x } = cells.sure;
  if (part === "hollow") {
    const y = cells.unsure?.z[row];
    return y?.some(Number.isFinite) ? [{ ...trace, x, y, text: cells.unsure.text[row] }] : [];
  }
  const { customdata, text } = cells.sure;
  const errors = customdata?.[row];
  if (part === "line") return [{ ...trace, x, y: cells.sure.z[row], ...(errors ? { customdata: errors } : {}), ...(text ? { text: text[row] } : {}) }];
  if (!errors) return [];
  const half = (at) => (Number.isNaN(errors[at]) && text ? 0 : errors[at]); // of several values, some are exact
  return [{ ...trace, x, y: anyOf(cells, row).map((value, at) => value + (part === "low" ? -half(at) : half(at))) }];
}

/** The spectrum of a layer at the epoch nearest to `epoch`, the last one if it is null. */
async function spectrumOf(run, layer, epoch) {
  const own = await unpack(`spectrum/${run}/${state.runs[run].layers.indexOf(layer)}`);
  if (!own.epochs) return own;
  const frame = await unpack("spectrum");
  const { epochs, layouts, traces, ghost, missing } = own;
  const far = (at) => Math.abs(epochs[at] - epoch);
  const last = epochs.length - 1;
  const at = epoch === null ? last : epochs.reduce((best, _, other) => (far(other) < far(best) ? other : best), last);
  const panels = frame.panels.map((panel, side) => ({
    ...panel,
    layout: { ...panel.layout, ...layouts[side] },
    data: frame.traces[side].map((shared, number) => ({
      ...shared, ...Object.fromEntries(Object.entries(traces[side][number]).map(([name, values]) => [name, values[at]])),
    })),
  }));
  if (at) panels[0].data.unshift(ghost);
  panels[0].layout.meta = { epochs, at, missing };
  return panels;
}

const source = {
  live: false,
  title: document.title,
  where: state.runs.map((run) => run.about.record).slice(0, MOST_PATHS).join(", ")
    + (state.runs.length > MOST_PATHS ? ` and ${state.runs.length - MOST_PATHS} more` : ""),
  ready: inflated("plotly").text().then((text) => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: text }));
  }),
  state: async () => state,
  layers: (run) => unpack(`layers/${runNumber(run)}`),
  async figure(view, { runs, quantity, layer, epoch, relative, notes }) {
    if (view === "heat_map") return relative ? relativeHeatMap(quantity) : heatMapOf(quantity);
    if (view === "alerts") return unpack(notes ? "alerts/notes" : "alerts");
    if (view === "history") return historyOf(layer);
    if (view === "spectrum") return spectrumOf(runNumber(runs[0]), layer, epoch);
    return unpack(view);
  },
};

await start(document.getElementById("page"), source);
