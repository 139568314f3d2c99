// TensorBoard calls render() inside the plugin's own frame; every address is relative to the plugin, so nothing comes
// from another host.

const asked = new Map();

async function fetchJson(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    for (const item of [value].flat()) if (item !== null && item !== undefined) query.append(name, item);
  }
  try {
    const response = await fetch(`./${path}?${query}`);
    if (!response.ok) throw new Error(`status ${response.status}`);
    return await response.json();
  } catch (error) {
    asked.clear();
    throw Object.assign(new Error(`${path}: ${error.message}`), { name: "NoAnswer" });
  }
}

/** A figure fetched once for each version of the data: opening a tab again costs nothing. */
function once(version, path, parameters) {
  if (asked.version !== version) {
    asked.clear();
    asked.version = version;
  }
  const key = JSON.stringify([path, parameters]);
  if (!asked.has(key)) asked.set(key, fetchJson(path, parameters));
  return asked.get(key);
}

function load(tag, attributes) {
  return new Promise((resolve, reject) => {
    const failed = () => reject(Object.assign(new Error(`${tag} did not load`), { name: "NoAnswer" }));
    const made = Object.assign(document.createElement(tag), attributes, { onload: resolve, onerror: failed });
    document.head.append(made);
  });
}

export async function render() {
  const root = document.createElement("div");
  document.body.replaceChildren(root);
  // All that is needed is asked for at once.
  let first = fetchJson("state");
  const page = import("./page.js");
  const style = load("link", { rel: "stylesheet", href: "./style.css" });
  const ready = load("script", { src: "./plotly.js" });
  let version = null;
  const source = {
    live: true,
    ready,
    async state(known) {
      const asking = first ?? fetchJson("state", { version: known });
      first = null;
      const state = await asking;
      version = state.version;
      return state;
    },
    figure: (view, { runs, ...others }) => once(version, "figure", { view, run: runs, ...others }),
    layers: (run) => once(version, "layers", { run }),
  };
  await style;
  const { start } = await page;
  await start(root, source);
}
