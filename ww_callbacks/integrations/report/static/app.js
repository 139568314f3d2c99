// The page with the four views. It draws what a source gives it: TensorBoard's plugin fetches from the server while
// training writes, the report reads what is embedded in the page. Written for browsers since May 2023 (Chrome and Edge
// 111, Firefox 113, Safari 16.4).
//
// A source has: live (whether it changes); state(version) -> what is known of the runs; figure(view, parameters) -> the
// panels of a view; layers(run) -> the rows of the table; ready, once plotly itself is there. They reject with an error
// named NoAnswer while the server is away.

import { listed, readAddress, unlisted, writeAddress } from "./address.js";
import { CLOCKS, withAxes } from "./axes.js";
import { element, select, tick } from "./dom.js";
import { drawPanels } from "./plots.js";
import { drawRuns, worstFirst } from "./runs.js";
import { followTheme } from "./theme.js";
import { flow } from "./views/flow.js";
import { heatMap } from "./views/heat_map.js";
import { oneLayer } from "./views/layer.js";
import { overview } from "./views/overview.js";

const VIEWS = {
  overview: ["Overview", overview],
  heat_map: ["Layers × epochs", heatMap],
  layer: ["One layer", oneLayer],
  flow: ["Correlation flow", flow],
};
const REFRESH = 2000;
const AT_FIRST = 2;

export async function start(root, source) {
  const app = new App(root, source);
  followTheme(() => app.draw());
  await app.refresh();
  if (source.live) app.follow();
  return app;
}

class App {
  constructor(root, source) {
    this.source = source;
    this.state = { version: null, runs: [], quantities: {} };
    this.unticked = false; // the user deselected all runs
    this.tables = {};
    this.filter = "";
    this.lastHeard = null;
    this.panels = {};
    this.drawing = 0;
    this.recall();
    this.freshness = element("span", { class: "freshness" });
    this.spoken = element("p", { class: "spoken", role: "status" }); // for screen readers, and only what is news
    this.tabs = element("div", { class: "tabs", role: "tablist", "aria-label": "views", onkeydown: (event) => this.arrow(event) });
    this.runs = element("aside", { class: "runs", "aria-label": "runs", hidden: true });
    this.notices = element("div", { class: "notices" });
    this.body = element("main", { tabindex: -1 });
    root.classList.add("app");
    root.replaceChildren(
      element("button", { class: "skip", onclick: () => this.body.focus() }, "Skip to the figures"),
      this.spoken,
      element("header", {}, element("h1", {}, source.title ?? "Spectra of the weights", source.where ? element("small", {}, source.where) : null), this.tabs, this.freshness),
      element("div", { class: "sides" }, this.runs, element("div", { class: "content" }, this.notices, this.body)),
    );
    for (const [name, [title]] of Object.entries(VIEWS)) {
      this.tabs.append(element("button", { role: "tab", id: `tab-${name}`, "data-tab": name, "aria-controls": `view-${name}`, onclick: () => this.open(name) }, title));
      this.panels[name] = element("section", { role: "tabpanel", id: `view-${name}`, "aria-labelledby": `tab-${name}`, "data-view": name, hidden: true });
    }
    this.message = element("p", { class: "empty", hidden: true });
    this.body.append(this.message, ...Object.values(this.panels));
  }

  // --- what is looked at, and the address that says so ---------------------------------------------------------

  recall() {
    const said = readAddress();
    const one = (name, otherwise) => said[name] ?? otherwise;
    this.tab = one("view", "overview") in VIEWS ? one("view", "overview") : "overview";
    this.chosen = unlisted(said.runs);
    this.quantity = one("quantity", null);
    this.looked = this.quantity !== null; // the user chose what the heat map shows
    this.relative = one("relative", "") === "1";
    this.layer = one("layer", null);
    this.layerRun = one("of", null);
    this.picked = this.layer !== null; // the user chose what "one layer" shows
    this.over = one("over", "");
    this.epoch = "epoch" in said ? Number(one("epoch")) : null;
    this.clock = one("clock", "epoch");
    this.log = one("log", "") === "1";
    this.robust = one("robust", "") === "1";
    this.notes = one("notes", "") === "1";
  }

  remember() {
    const layer = this.tab === "layer";
    writeAddress({
      view: this.tab === "overview" ? null : this.tab,
      runs: this.source.live ? listed(this.chosen) : null,
      quantity: this.looked ? this.quantity : null,
      relative: this.looked && this.relative ? 1 : null,
      layer: layer ? this.layer : null,
      of: layer && this.chosen.length > 1 ? this.layerRun : null,
      over: layer ? this.over : null,
      epoch: layer ? this.epoch : null,
      clock: this.clock === "epoch" ? null : this.clock,
      log: this.log ? 1 : null,
      robust: this.robust ? 1 : null,
      notes: this.notes ? 1 : null,
    });
  }

  // --- what is known -------------------------------------------------------------------------------------------

  async refresh() {
    try {
      const state = await this.source.state(this.state.version);
      this.lastHeard = new Date();
      this.say(this.source.live ? `live, checked ${this.lastHeard.toLocaleTimeString()}` : "");
      if (state.unchanged) return;
      const before = new Map(this.state.runs.map((run) => [run.name, run.headline?.title]));
      const news = state.runs.filter((run) => before.has(run.name) && before.get(run.name) !== run.headline?.title);
      if (news.length) this.spoken.textContent = news.map((run) => `${run.name}: ${run.headline?.title ?? run.problem}`).join(". ");
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
    if (stale && !this.freshness.classList.contains("stale")) this.spoken.textContent = text;
    this.freshness.classList.toggle("stale", stale);
  }

  /** Keep the choices that still make sense, and make those that the user has not made: they follow the worst run that
   * is shown, but what is open does not change by itself while `anew` is false. */
  choose(anew = false) {
    const names = this.readable().map((run) => run.name);
    this.chosen = this.chosen.filter((name) => names.includes(name));
    if (!this.chosen.length && !this.unticked) {
      const latest = this.source.live ? this.state.latest.slice(0, AT_FIRST) : names;
      this.chosen = names.filter((name) => latest.includes(name));
    }
    const quantities = Object.keys(this.state.quantities);
    const worst = worstFirst(this.chosen.map((name) => this.run(name)))[0] ?? null;
    if (!this.looked && (anew || this.tab !== "heat_map" || !this.first)) {
      this.first = worst?.first ?? null;
      this.quantity = this.first?.quantity ?? null;
      this.relative = this.first?.relative ?? false;
    }
    if (!quantities.includes(this.quantity)) this.quantity = quantities[0] ?? "alpha";
    if (!this.picked && (anew || this.tab !== "layer")) this.layerRun = this.layer = null;
    if (!this.chosen.includes(this.layerRun)) this.layerRun = worst?.name ?? null;
    const layers = this.run(this.layerRun)?.layers ?? [];
    if (!layers.includes(this.layer)) this.layer = this.run(this.layerRun)?.worst || (layers[0] ?? null);
  }

  readable() {
    return this.state.runs.filter((run) => !run.problem);
  }

  run(name) {
    return this.state.runs.find((run) => run.name === name);
  }

  /** Show these runs, in the order of the list, so that colours do not depend on the order of clicks. */
  chooseRuns(names) {
    this.chosen = this.readable().map((run) => run.name).filter((name) => names.includes(name));
    this.unticked = !this.chosen.length;
    this.choose(true);
    return this.draw();
  }

  open(tab) {
    this.tab = tab;
    return this.draw();
  }

  openLayer(run, layer, epoch = null) {
    this.layerRun = run;
    this.layer = layer;
    this.picked = true;
    this.epoch = epoch;
    return this.open("layer");
  }

  arrow(event) {
    const names = Object.keys(VIEWS);
    const at = names.indexOf(this.tab);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const next = names[(to + names.length) % names.length];
    this.open(next);
    this.tabs.querySelector(`[data-tab=${next}]`).focus();
  }

  // --- drawing -------------------------------------------------------------------------------------------------

  async draw() {
    for (const button of this.tabs.children) {
      const open = button.dataset.tab === this.tab;
      button.setAttribute("aria-selected", String(open));
      button.tabIndex = open ? 0 : -1;
    }
    if (this.state.version === null && !this.state.runs.length) return;
    this.remember();
    drawRuns(this, this.runs);
    this.drawNotices();
    const nothing = !this.chosen.length;
    this.message.hidden = !nothing;
    this.message.textContent = this.state.message || "No run is chosen.";
    for (const [name, panel] of Object.entries(this.panels)) panel.hidden = nothing || name !== this.tab;
    if (nothing) return;
    // Of two drawings that overlap (a click during a refresh) the later one wins.
    const turn = ++this.drawing;
    this.current = () => turn === this.drawing;
    const { tab, state } = this;
    try {
      await VIEWS[tab][1](this, this.panels[tab]);
    } catch (error) {
      this.lost(error);
      return;
    }
    if (turn === this.drawing) this.panels[tab].dataset.drawn = state.version;
  }

  drawNotices() {
    const texts = this.state.runs.filter((run) => run.problem).map((run) => `${run.name}: ${run.problem}`);
    const runs = this.chosen.map((name) => this.run(name));
    for (const run of runs) texts.push(...run.notes.map((note) => `${run.name}: ${note}`));
    const common = (runs[0]?.layers ?? []).filter((layer) => runs.every((run) => run.layers.includes(layer)));
    const own = runs.filter((run) => run.layers.length > common.length);
    if (own.length) {
      const parts = own.slice(0, 4).map((run) => `${run.layers.length - common.length} only in ${run.name}`).join(", ");
      texts.push(`These runs watch different layers: ${common.length} in common, ${parts}. Each is shown with its own.`);
    }
    this.notices.replaceChildren(...texts.map((text) => element("div", { class: "note" }, text)));
  }

  /** Draw a view's panels into `place`, changed by `change`; null if another drawing has begun meanwhile. */
  async plot(place, view, parameters, change = (panels) => panels) {
    const { current } = this;
    const [given] = await Promise.all([this.source.figure(view, parameters), this.source.ready]);
    const panels = await change(given);
    if (!current()) return null;
    place.dataset.figure = view;
    const clocks = Object.fromEntries(this.chosen.map((name) => [name, this.run(name)?.clock]).filter(([, clock]) => clock));
    const options = { clock: this.clock, log: this.log, robust: this.robust };
    await drawPanels(place, panels.map((panel) => withAxes(panel, options, clocks)), {
      view, table: this.state.style.dark, clicked: (event) => this.clicked(event),
    });
    place.dataset.figureOf = JSON.stringify(parameters);
    return panels;
  }

  clicked(event) {
    const point = event.points.find((candidate) => candidate.data.meta?.role === "layers");
    if (!point) return;
    const { meta } = point.data;
    const own = this.run(meta.run);
    const clock = own.clock[this.clock];
    const near = clock.reduce((best, value, at) => (Math.abs(value - point.x) < Math.abs(clock[best] - point.x) ? at : best), 0);
    this.openLayer(meta.run, meta.layers[point.pointNumber[0]], own.clock.epoch[near]);
  }

  clockControl() {
    return select("across", CLOCKS, this.clock, (value) => { this.clock = value; return this.draw(); });
  }

  /** What the panels over time can be set to. */
  timeControls(place, { notes }) {
    const change = (name) => (value) => { this[name] = value; return this.draw(); };
    if (place.contains(document.activeElement)) return;
    place.replaceChildren(element("div", { class: "controls" },
      this.clockControl(),
      tick("log", "log axis", this.log, change("log")),
      tick("robust", "without outliers", this.robust, change("robust"), "from the 2 % to the 98 % quantile"),
      notes ? tick("notes", "notes", this.notes, change("notes"), "alerts that only inform, too") : null));
  }
}
