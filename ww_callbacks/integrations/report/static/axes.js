// The axes: epochs, steps or time horizontally; optionally a log axis or a range without outliers vertically.

export const CLOCKS = [["epoch", "epochs"], ["step", "steps"], ["time", "minutes"]];
const TITLES = { step: "optimizer steps done", time: "minutes since the start" };
const READERS = { f4: Float32Array, f8: Float64Array, i4: Int32Array };

/** The numbers of an array that may be packed as plotly packs it. */
export function numbers(packed) {
  if (!packed || !packed.bdata) return packed;
  const bytes = Uint8Array.from(atob(packed.bdata), (character) => character.charCodeAt(0));
  return new READERS[packed.dtype](bytes.buffer);
}

/** `x` on the scale `from` as what it is on the scale `to`, linearly between their points and beyond their ends. */
export function interpolated(x, from, to) {
  if (typeof x !== "number" || from.length < 2) return typeof x === "number" && from.length ? to[0] : x;
  let low = 0;
  let high = from.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= x) low = middle;
    else high = middle;
  }
  const span = from[high] - from[low];
  return span ? to[low] + ((x - from[low]) / span) * (to[high] - to[low]) : to[low];
}

function quantile(sorted, share) {
  return sorted[Math.round(share * (sorted.length - 1))];
}

/** The panel as `options` (clock, log, robust) want it; `clocks` are the runs' epochs, steps and times by run. */
export function withAxes(panel, options, clocks) {
  if (!panel.group) return panel;
  const layout = { ...panel.layout, xaxis: { ...panel.layout.xaxis }, yaxis: { ...panel.layout.yaxis } };
  let data = panel.data;
  const { clock } = options;
  if (clock !== "epoch" && (panel.group === "time" || panel.group === "layers")) {
    const known = Object.values(clocks);
    const moved = (x, run) => {
      const own = clocks[run] ?? known[0];
      return own ? interpolated(x, own.epoch, own[clock]) : x;
    };
    data = data.map((trace) => ({ ...trace, x: Array.from(numbers(trace.x) ?? [], (x) => moved(x, trace.meta?.run)) }));
    layout.shapes = layout.shapes.map((shape) => shape.xref !== "x" ? shape
      : { ...shape, x0: moved(shape.x0, shape.name), x1: moved(shape.x1, shape.name) });
    layout.annotations = layout.annotations.map((note) => (note.xref !== "x" ? note : { ...note, x: moved(note.x, note.name) }));
    if (layout.xaxis.title?.text) layout.xaxis.title = { ...layout.xaxis.title, text: TITLES[clock] };
    if (layout.xaxis.range) {
      const low = Math.min(...known.map((own) => own[clock][0]));
      const high = Math.max(...known.map((own) => own[clock].at(-1)));
      const room = 0.02 * (high - low) || 0.5;
      layout.xaxis.range = [low - room, high + room];
    }
  }
  const lines = panel.group === "time" && layout.yaxis.showticklabels !== false && layout.yaxis.type !== "category";
  if (lines && (options.log || options.robust)) {
    const values = data.filter((trace) => trace.mode?.includes("lines") || trace.mode === "markers")
      .flatMap((trace) => Array.from(numbers(trace.y) ?? [])).filter((y) => Number.isFinite(y) && (!options.log || y > 0));
    if (values.length) {
      if (options.log) {
        delete layout.yaxis.tickformat;
        delete layout.yaxis.range;
        layout.yaxis = { ...layout.yaxis, type: "log" };
      }
      if (options.robust) {
        values.sort((a, b) => a - b);
        const ends = [quantile(values, 0.02), quantile(values, 0.98)].map((y) => (options.log ? Math.log10(y) : y));
        const room = 0.08 * (ends[1] - ends[0]) || Math.abs(ends[0]) * 0.1 || 1;
        layout.yaxis.range = [ends[0] - room, ends[1] + room];
      }
    }
  }
  return { ...panel, data, layout };
}
