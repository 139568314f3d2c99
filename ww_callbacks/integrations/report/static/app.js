// The page with the four views. It draws what a source gives it: TensorBoard's plugin fetches from the server while
// training writes, the report reads what is embedded in the page.
//
// A source has: live (whether it changes); state(version) -> what is known of the runs; figure(view, parameters) -> a
// plotly figure; layers(run) -> the rows of the table; ready, once plotly itself is there. They reject with an error
// named NoAnswer while the server is away.

const TABS = [
  ["overview", "Overview"],
  ["heat_map", "Layers × epochs"],
  ["layer", "One layer"],
  ["flow", "Correlation flow"],
];
const RUN_COLOURS = ["#0072B2", "#009E73", "#CC79A7", "#333333", "#56B4E9"];
const RUN_DASHES = ["solid", "dashed", "dotted", "dashed", "dashed"];
const SIGNS = { good: "✓", watch: "▲", bad: "✕", open: "○", critical: "✕", warning: "▲", info: "●", "": "" };
const COLUMNS = [
  "alpha", "log_spectral_norm", "effective_rank", "relative_distance_from_init", "scale_collapse", "relative_update_norm",
];
const REFRESH = 2000;
const AT_FIRST = 2;

/** An element with its children; texts become text nodes, so that no name is ever read as HTML. */
function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function shown(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  return Number(value.toPrecision(digits)).toString();
}

export async function start(root, source) {
  const app = new App(root, source);
  await app.refresh();
  if (source.live) app.follow();
  return app;
}

class App {
  constructor(root, source) {
    this.source = source;
    this.state = { version: null, runs: [] };
    this.tab = "overview";
    this.chosen = [];
    this.unticked = false; // a person wants to see no run
    this.quantity = "alpha";
    this.layer = null;
    this.layerRun = null;
    this.epoch = null;
    this.lastHeard = null;
    this.panels = {};
    this.drawing = 0;
    this.freshness = element("span", { class: "freshness", role: "status" });
    this.tabs = element("div", { class: "tabs", role: "tablist" });
    this.runs = element("div", { class: "runs" });
    this.notes = element("div");
    this.body = element("main");
    root.classList.add("app");
    root.replaceChildren(
      element("header", {}, element("h1", {}, "Spectra of the weights"), this.tabs, this.freshness),
      this.runs, this.notes, this.body,
    );
    for (const [name, title] of TABS) {
      const open = () => this.open(name);
      this.tabs.append(element("button", { role: "tab", "data-tab": name, onclick: open }, title));
      this.panels[name] = element("section", { role: "tabpanel", "data-view": name, hidden: true });
    }
    this.message = element("p", { class: "empty", hidden: true });
    this.body.append(this.message, ...Object.values(this.panels));
  }

  // --- what is known -------------------------------------------------------------------------------------------

  async refresh() {
    try {
      const state = await this.source.state(this.state.version);
      this.lastHeard = new Date();
      this.say(this.source.live ? `live, checked ${this.lastHeard.toLocaleTimeString()}` : "");
      if (state.unchanged) return;
      this.state = state;
      this.choose();
    } catch (error) {
      this.lost(error);
      return;
    }
    await this.draw();
  }

  /** The server gave no answer: say so, leave what is shown, and draw again when it is back. */
  lost(error) {
    if (error.name !== "NoAnswer") throw error;
    this.state.version = null;
    this.say(`no answer from the server; shown as of ${this.lastHeard?.toLocaleTimeString() ?? "never"}`, true);
  }

  follow() {
    const pause = () => (this.state.reading ? REFRESH / 10 : REFRESH);
    const again = async () => {
      if (!document.hidden) await this.refresh();
      setTimeout(again, pause());
    };
    setTimeout(again, pause());
  }

  say(text, stale = false) {
    this.freshness.textContent = text;
    this.freshness.classList.toggle("stale", stale);
  }

  /** Keep the choices that still make sense, and make those that have not been made. */
  choose() {
    const names = this.readable().map((run) => run.name);
    this.chosen = this.chosen.filter((name) => names.includes(name));
    if (!this.chosen.length && !this.unticked) {
      const latest = this.source.live ? this.state.latest.slice(0, AT_FIRST) : names;
      this.chosen = names.filter((name) => latest.includes(name));
    }
    const quantities = Object.keys(this.state.quantities);
    if (!quantities.includes(this.quantity)) this.quantity = quantities[0] ?? "alpha";
    if (!this.chosen.includes(this.layerRun)) this.layerRun = this.chosen[0] ?? null;
    const layers = this.run(this.layerRun)?.layers ?? [];
    if (!layers.includes(this.layer)) this.layer = layers[0] ?? null;
  }

  readable() {
    return this.state.runs.filter((run) => !run.problem);
  }

  run(name) {
    return this.state.runs.find((run) => run.name === name);
  }

  open(tab) {
    this.tab = tab;
    return this.draw();
  }

  openLayer(run, layer, epoch = null) {
    this.layerRun = run;
    this.layer = layer;
    this.epoch = epoch;
    return this.open("layer");
  }

  // --- drawing -------------------------------------------------------------------------------------------------

  async draw() {
    for (const button of this.tabs.children) {
      button.setAttribute("aria-selected", String(button.dataset.tab === this.tab));
    }
    this.drawRuns();
    this.drawNotes();
    const nothing = !this.chosen.length;
    this.message.hidden = !nothing;
    this.message.textContent = this.state.message || "No run is chosen.";
    for (const [name, panel] of Object.entries(this.panels)) panel.hidden = nothing || name !== this.tab;
    if (nothing) return;
    // Of two drawings that overlap (a click during a refresh) the later one wins.
    const turn = ++this.drawing;
    this.current = () => turn === this.drawing;
    const views = { overview: this.overview, heat_map: this.heatMap, layer: this.oneLayer, flow: this.flow };
    const { tab, state } = this;
    try {
      await views[tab].call(this);
    } catch (error) {
      this.lost(error);
      return;
    }
    if (turn === this.drawing) this.panels[tab].dataset.drawn = state.version;
  }

  drawRuns() {
    const runs = this.readable();
    this.runs.replaceChildren();
    if (!this.source.live || runs.length < 2) return;
    for (const run of runs) {
      const place = this.chosen.indexOf(run.name);
      const toggle = () => {
        this.chosen = place < 0 ? [...this.chosen, run.name] : this.chosen.filter((name) => name !== run.name);
        // In the order of the list, so that colours do not depend on the order of clicks.
        this.chosen = runs.map((other) => other.name).filter((name) => this.chosen.includes(name));
        this.unticked = !this.chosen.length;
        this.choose();
        return this.draw();
      };
      const box = element("input", { type: "checkbox", onchange: toggle });
      box.checked = place >= 0;
      this.runs.append(element("label", {}, box, this.swatch(place), run.name));
    }
  }

  /** A piece of the line that the run at this place among the chosen ones is drawn with. */
  swatch(place) {
    const style = place < 0 ? "border-color:transparent"
      : `border-color:${RUN_COLOURS[place % 5]};border-top-style:${RUN_DASHES[place % 5]}`;
    return element("span", { class: "swatch", style });
  }

  drawNotes() {
    const texts = this.state.runs.filter((run) => run.problem).map((run) => `${run.name}: ${run.problem}`);
    const runs = this.chosen.map((name) => this.run(name));
    for (const run of runs) texts.push(...run.notes.map((note) => `${run.name}: ${note}`));
    const common = runs.map((run) => new Set(run.layers)).reduce((some, more) => some.intersection(more), new Set(runs[0]?.layers));
    const own = runs.filter((run) => run.layers.length > common.size);
    if (own.length) {
      const parts = own.map((run) => `${run.layers.length - common.size} only in ${run.name}`).join(", ");
      texts.push(`These runs watch different layers: ${common.size} in common, ${parts}. Each is shown with its own.`);
    }
    this.notes.replaceChildren(...texts.map((text) => element("div", { class: "note" }, text)));
  }

  /** The place of a figure in a panel: kept over refreshes, so that zoom and scroll stay. */
  place(panel, name) {
    let found = panel.querySelector(`:scope > .figure[data-figure="${name}"]`);
    if (!found) {
      found = element("div", { class: "figure", "data-figure": name });
      panel.append(found);
    }
    return found;
  }

  /** A part of a panel that is rebuilt at each drawing. */
  part(panel, name) {
    let found = panel.querySelector(`:scope > [data-part="${name}"]`);
    if (!found) {
      found = element("div", { "data-part": name });
      panel.append(found);
    }
    return found;
  }

  async plot(place, view, parameters) {
    const current = this.current;
    const [figure] = await Promise.all([this.source.figure(view, parameters), this.source.ready]);
    if (!current()) return null;
    await Plotly.react(place, {
      data: figure.data,
      layout: figure.layout,
      config: { responsive: true, displaylogo: false, toImageButtonOptions: { format: "svg", filename: view } },
    });
    place.dataset.figureOf = JSON.stringify(parameters);
    if (!place.dataset.listens) {
      place.dataset.listens = "yes";
      place.on("plotly_click", (event) => this.clicked(event));
    }
    return figure;
  }

  clicked(event) {
    const point = event.points.find((candidate) => candidate.data.meta?.role === "layers");
    if (!point) return;
    const meta = point.data.meta;
    this.openLayer(meta.run, meta.layers[point.pointNumber[0]], Number(point.x));
  }

  // --- the views -----------------------------------------------------------------------------------------------

  async overview() {
    const panel = this.panels.overview;
    // Taken now: both may be others' by the time that the server has answered.
    const { current, chosen } = this;
    const runs = chosen.map((name) => this.run(name));
    this.part(panel, "cards").replaceChildren(element("div", { class: "cards" }, ...runs.map((run) => this.card(run))));
    const place = this.place(panel, "timeline");
    const tables = async () => {
      const rows = await Promise.all(chosen.map((name) => this.source.layers(name)));
      if (!current()) return;
      const scrolled = [...panel.querySelectorAll(".scroll")].map((box) => box.scrollTop);
      this.part(panel, "tables").replaceChildren(...runs.map((run, at) => this.table(run, rows[at], runs.length > 1)));
      panel.querySelectorAll(".scroll").forEach((box, at) => { box.scrollTop = scrolled[at] ?? 0; });
      this.about(this.part(panel, "about"), runs);
    };
    await Promise.all([tables(), this.plot(place, "timeline", { runs: chosen })]);
  }

  card(run) {
    const { tone, title, text, advice } = run.headline;
    const where = run.epoch === null ? "no snapshot yet" : `epoch ${shown(run.epoch)}, step ${run.step}`;
    const cost = run.overhead === null ? "" : `, callback's share of the time ${shown(run.overhead * 100, 2)} %`;
    return element(
      "div", { class: `card ${tone}` },
      element("div", { class: "run" }, this.chosen.length > 1 ? this.swatch(this.chosen.indexOf(run.name)) : null, `${run.name}: ${where}${cost}`),
      element("div", { class: "title" }, `${SIGNS[tone]} ${title}`),
      element("p", {}, text),
      run.alerted ? element("p", {}, run.alerted) : null,
      advice ? element("p", { class: "advice" }, advice) : null,
    );
  }

  table(run, rows, named) {
    const columns = COLUMNS.filter((name) => run.quantities.includes(name));
    const flagged = rows.filter((row) => row.severity).length;
    const summary = flagged ? `${flagged} of ${rows.length} layers with an alert` : `none of ${rows.length} layers with an alert`;
    const head = columns.map((name) => {
      const known = this.state.quantities[name] ?? { title: name, definition: "" };
      return element("th", { class: "number", title: known.definition }, known.title);
    });
    const body = rows.map((row) => {
      const cells = columns.map((name) => {
        const doubt = !row.sure && name === "alpha";
        const error = name === "alpha" && row.values.sigma ? ` ± ${shown(row.values.sigma, 2)}` : "";
        const value = row.values[name];
        const text = value === null || value === undefined ? "–" : `${shown(value)}${error}`;
        return element("td", { class: `number${doubt ? " unsure" : ""}` }, doubt && value !== null ? `(${text})` : text);
      });
      const open = () => this.openLayer(run.name, row.layer);
      return element(
        "tr", { class: `link ${row.severity}`, tabindex: 0, onclick: open, onkeydown: (event) => event.key === "Enter" && open() },
        element("td", {}, row.layer),
        element("td", {}, `${SIGNS[row.severity]} ${row.words}`),
        ...cells,
      );
    });
    return element(
      "div", {},
      element("h2", {}, `Layers now${named ? ` in ${run.name}` : ""}: ${summary}`),
      element("div", { class: "scroll" }, element(
        "table", {},
        element("thead", {}, element("tr", {}, element("th", {}, "layer"), element("th", {}, "standing"), ...head)),
        element("tbody", {}, ...body),
      )),
    );
  }

  about(place, runs) {
    const open = new Set([...place.querySelectorAll("details[open]")].map((details) => details.dataset.about));
    const details = (name, title, ...inside) =>
      element("details", { "data-about": name, open: open.has(name) || !this.source.live }, element("summary", {}, title), ...inside);
    const pairs = (values) => element("table", {}, element("tbody", {}, ...Object.entries(values).map(
      ([name, value]) => element("tr", {}, element("td", {}, name), element("td", {}, String(value))))));
    const alerts = runs.flatMap((run) => run.alerts.map((alert) => ({ run: run.name, ...alert }))).reverse();
    place.replaceChildren(
      details(
        "alerts", `Alerts (${runs.reduce((sum, run) => sum + run.alerts_in_all, 0)})`,
        element("div", { class: "scroll" }, element("table", {}, element("tbody", {}, ...alerts.map((alert) => element(
          "tr", { class: alert.severity },
          element("td", { class: "brief" }, `${SIGNS[alert.severity]} ${alert.severity}`),
          element("td", { class: "brief" }, runs.length > 1 ? `${alert.run}, epoch ${shown(alert.epoch)}` : `epoch ${shown(alert.epoch)}`),
          element("td", { class: "brief" }, alert.kind),
          element("td", {}, `${alert.message} ${alert.recommendation}`),
        ))))),
      ),
      details("quantities", "What the quantities mean", element("table", {}, element("tbody", {}, ...Object.entries(this.state.quantities).map(
        ([name, known]) => element("tr", {}, element("td", {}, name), element("td", {}, known.title), element("td", {}, known.definition)))))),
      details("settings", "Settings and versions", ...runs.map((run) => element(
        "div", { class: "columns" },
        element("div", {}, element("h2", {}, run.name), pairs(run.about)),
        element("div", {}, element("h2", {}, "Settings"), pairs(run.settings)),
        element("div", {}, element("h2", {}, "Versions"), pairs(run.versions)),
      ))),
    );
  }

  async heatMap() {
    const panel = this.panels.heat_map;
    const known = this.state.quantities[this.quantity];
    if (!known) {
      this.part(panel, "controls").replaceChildren(element("p", { class: "empty" }, "No snapshot yet."));
      return;
    }
    this.part(panel, "controls").replaceChildren(element(
      "div", { class: "controls" },
      this.select("quantity", Object.keys(this.state.quantities), this.quantity, (value) => { this.quantity = value; }),
      element("span", { class: "definition" }, known?.definition ?? ""),
      element("span", { class: "definition" }, "Click a cell to look inside that layer at that epoch."),
    ));
    await this.plot(this.place(panel, "heat_map"), "heat_map", { runs: this.chosen, quantity: this.quantity });
  }

  async oneLayer() {
    const panel = this.panels.layer;
    if (!this.chosen.includes(this.layerRun)) this.layerRun = this.chosen[0];
    const layers = this.run(this.layerRun)?.layers ?? [];
    if (!layers.includes(this.layer)) this.layer = layers[0] ?? null;
    const at = layers.indexOf(this.layer);
    const step = (by) => () => { this.layer = layers[at + by]; return this.draw(); };
    this.part(panel, "controls").replaceChildren(element(
      "div", { class: "controls" },
      this.chosen.length > 1 ? this.select("run", this.chosen, this.layerRun, (value) => { this.layerRun = value; }) : null,
      this.select("layer", layers, this.layer, (value) => { this.layer = value; }),
      element("button", { onclick: step(-1), disabled: at <= 0 }, "previous"),
      element("button", { onclick: step(1), disabled: at >= layers.length - 1 }, "next"),
      element("span", {}, `layer ${at + 1} of ${layers.length}`),
    ));
    if (this.layer === null) return;
    this.place(panel, "spectrum"); // above its slider
    this.part(panel, "slider");
    await Promise.all([
      this.spectrum(panel),
      this.plot(this.place(panel, "history"), "history", { runs: this.chosen, layer: this.layer }),
    ]);
  }

  /** The spectrum at the chosen epoch, or at the last one while none is; a slider goes through all. */
  async spectrum(panel) {
    const sliders = this.part(panel, "slider");
    const parameters = { runs: [this.layerRun], layer: this.layer, epoch: this.epoch };
    const figure = await this.plot(this.place(panel, "spectrum"), "spectrum", parameters);
    if (!figure) return;
    const { epochs, at } = figure.layout.meta ?? { epochs: [], at: 0 };
    if (!sliders.firstChild) {
      const move = () => this.moved(panel);
      this.slider = element("input", { type: "range", min: 0, step: 1, "aria-label": "epoch", oninput: move });
      this.sliderText = element("output");
      sliders.append(element("label", { class: "slider" }, "epoch ", this.slider, this.sliderText));
    }
    sliders.hidden = epochs.length < 2;
    this.epochs = epochs;
    this.slider.max = Math.max(epochs.length - 1, 0);
    this.slider.value = at;
    this.sliderText.value = epochs.length ? `${shown(epochs[at])} of ${shown(epochs.at(-1))}` : "";
  }

  /** The slider was moved: draw that epoch, and of those passed over meanwhile only the last. */
  async moved(panel) {
    const at = Number(this.slider.value);
    // At the right end the view follows the training.
    this.epoch = at === this.epochs.length - 1 ? null : this.epochs[at];
    if (this.moving) return;
    this.moving = true;
    try {
      let drawn;
      do {
        drawn = this.epoch;
        await this.spectrum(panel);
      } while (this.epoch !== drawn);
    } finally {
      this.moving = false;
    }
  }

  async flow() {
    const panel = this.panels.flow;
    await Promise.all([
      this.plot(this.place(panel, "flow"), "flow", { runs: this.chosen }),
      this.plot(this.place(panel, "histograms"), "histograms", { runs: this.chosen }),
    ]);
    const measured = this.chosen.some((name) => this.run(name)?.quantities.includes("rand_distance"));
    this.part(panel, "hint").replaceChildren(element("p", { class: "definition" }, measured ? "" :
      'The distance from random against alpha is shown for runs with quantities=["default", "rand_distance"].'));
  }

  select(name, values, value, take) {
    const change = (event) => { take(event.target.value); return this.draw(); };
    const made = element("select", { name, onchange: change }, ...values.map((item) => element("option", { value: item }, item)));
    made.value = value;
    return element("label", {}, `${name} `, made);
  }
}
