// The report's source: everything is in this file, compressed, and unpacked when it is first looked at. This text
// follows app.js in one module.

import { start } from "./app.js";

const unpacked = new Map();

function unpackText(id) {
  const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).text();
}

function unpack(id) {
  if (!unpacked.has(id)) unpacked.set(id, unpackText(id).then(JSON.parse));
  return unpacked.get(id);
}

const state = await unpack("state");
const runNumber = (name) => state.runs.findIndex((run) => run.name === name);

const source = {
  live: false,
  title: document.title,
  ready: unpackText("plotly").then((text) => {
    document.head.append(Object.assign(document.createElement("script"), { textContent: text }));
  }),
  state: async () => state,
  layers: (run) => unpack(`layers/${runNumber(run)}`),
  async figure(view, { runs, quantity, layer, epoch, relative, notes }) {
    if (view === "heat_map") return unpack(`heat_map/${Object.keys(state.quantities).indexOf(quantity)}${relative ? "/relative" : ""}`);
    if (view === "alerts") return unpack(notes ? "alerts/notes" : "alerts");
    if (view === "history") return unpack(`history/${state.layers.indexOf(layer)}`);
    if (view !== "spectrum") return unpack(view);
    const run = runNumber(runs[0]);
    const spectra = await unpack(`spectrum/${run}/${state.runs[run].layers.indexOf(layer)}`);
    if (!spectra.epochs) return spectra;
    const { epochs, panels, traces, ghost, missing } = spectra;
    const far = (at) => Math.abs(epochs[at] - epoch);
    const last = epochs.length - 1;
    const at = epoch === null ? last : epochs.reduce((best, _, other) => (far(other) < far(best) ? other : best), last);
    const [density, distance] = traces[at];
    const meta = { epochs, at, missing };
    return [
      { ...panels[0], data: at ? [ghost, ...density] : density, layout: { ...panels[0].layout, meta } },
      { ...panels[1], data: distance },
    ];
  },
};

await start(document.getElementById("page"), source);
