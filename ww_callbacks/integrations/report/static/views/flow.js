// Alpha along the depth, against the distance from the shuffle, and how values are spread over the layers.

import { element, part } from "../dom.js";

export async function flow(app, panel) {
  await Promise.all([
    app.plot(part(panel, "flow"), "flow", { runs: app.chosen }),
    app.plot(part(panel, "random"), "random", { runs: app.chosen }),
    app.plot(part(panel, "histograms"), "histograms", { runs: app.chosen }),
  ]);
  const measured = app.chosen.some((name) => app.run(name)?.quantities.includes("rand_distance"));
  part(panel, "hint").replaceChildren(element("p", { class: "definition" }, measured ? "" :
    'The distance from the shuffle against α is shown for runs with quantities=["default", "rand_distance"].'));
}
