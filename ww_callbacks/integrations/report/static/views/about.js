// The end of the overview: the alerts in full, the definitions of the quantities, settings and versions.

import { counted, element, formula, refill, rich, sign } from "../dom.js";

export function about(app, place, runs) {
  const open = new Set([...place.querySelectorAll("details[open]")].map((details) => details.dataset.about));
  const details = (name, title, ...inside) =>
    element("details", { "data-about": name, open: open.has(name) || !app.source.live }, element("summary", {}, title), ...inside);
  const pairs = (values) => element("table", { class: "pairs" }, element("tbody", {}, ...Object.entries(values).map(
    ([name, value]) => element("tr", {}, element("td", {}, name), element("td", {}, String(value))))));
  const alerts = runs.flatMap((run) => run.alerts.map((alert) => ({ run: run.name, ...alert }))).reverse();
  const inAll = runs.reduce((sum, run) => sum + run.alerts_in_all, 0);
  const title = `Alerts and notes (${inAll > alerts.length ? `the last ${alerts.length} of ` : ""}${inAll})`;
  refill(place,
    details("alerts", title, element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": title }, element("table", {}, element("tbody", {}, ...alerts.map((alert) => element(
      "tr", { class: alert.severity },
      element("td", { class: "brief" }, sign(alert.severity), ` ${alert.severity === "info" ? "note" : alert.severity}`),
      element("td", { class: "brief" }, runs.length > 1 ? `${alert.run}, epoch ${counted(alert.epoch)}` : `epoch ${counted(alert.epoch)}`),
      element("td", { class: "brief" }, alert.kind),
      element("td", {}, ...rich(`${alert.message} ${alert.recommendation}`)),
    )))))),
    details("quantities", "What the quantities mean", element("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "what the quantities mean" }, element("table", {}, element("tbody", {}, ...Object.entries(app.state.quantities).map(
      ([name, known]) => element("tr", {}, element("td", { class: "brief" }, name), element("td", { class: "brief" }, known.title), element("td", {}, ...formula(known.definition)))))))),
    details("settings", "Settings and versions", ...runs.map((run) => element(
      "div", { class: "columns" },
      element("div", {}, element("h3", {}, run.name), pairs(run.about)),
      element("div", {}, element("h3", {}, "Settings"), Object.keys(run.settings).length ? pairs(run.settings) : element("p", {}, "all as by default")),
      element("div", {}, element("h3", {}, "Versions"), pairs(run.versions)),
    ))),
  );
}
