// The report's source: everything is in this file, compressed, and unpacked when it is first looked at. This text
// follows app.js in one module.

const unpacked = new Map();

function unpack(id) {
  if (!unpacked.has(id)) {
    const bytes = Uint8Array.from(atob(document.getElementById(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    unpacked.set(id, new Response(stream).json());
  }
  return unpacked.get(id);
}

const state = await unpack("state");
const runNumber = (name) => state.runs.findIndex((run) => run.name === name);

const source = {
  live: false,
  state: async () => state,
  layers: (run) => unpack(`layers/${runNumber(run)}`),
  async figure(view, { runs, quantity, layer, epoch }) {
    if (view === "heat_map") return unpack(`heat_map/${Object.keys(state.quantities).indexOf(quantity)}`);
    if (view === "history") return unpack(`history/${state.layers.indexOf(layer)}`);
    if (view !== "spectrum") return unpack(view);
    const run = runNumber(runs[0]);
    const spectra = await unpack(`spectrum/${run}/${state.runs[run].layers.indexOf(layer)}`);
    if (!spectra.epochs) return spectra;
    const { epochs, layout, traces } = spectra;
    const far = (at) => Math.abs(epochs[at] - epoch);
    const last = epochs.length - 1;
    const at = epoch === null ? last : epochs.reduce((best, _, other) => (far(other) < far(best) ? other : best), last);
    return { data: traces[at], layout: { ...layout, meta: { epochs, at } } };
  },
};

await start(document.getElementById("page"), source);
