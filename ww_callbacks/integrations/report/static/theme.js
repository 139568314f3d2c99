// Light or dark, as TensorBoard or the system has it.

let listeners = [];

function outer() {
  try {
    return window.parent !== window ? window.parent.document.body : null;
  } catch {
    return null; // another origin's frame
  }
}

export function isDark() {
  const body = outer();
  if (body) return body.classList.contains("dark-mode");
  return window.matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Follow the theme: the page's colours now and at each change, and `changed` at each change. */
export function followTheme(changed) {
  const apply = () => { document.documentElement.dataset.theme = isDark() ? "dark" : "light"; };
  apply();
  const again = () => { apply(); for (const listener of listeners) listener(); };
  listeners = [changed];
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  const body = outer();
  if (body) new MutationObserver(again).observe(body, { attributes: true, attributeFilter: ["class"] });
}

const COLOUR = /#[0-9a-f]{6}/gi;

/** A figure, or a part of one, in the colours of `table` (light → dark); only what is named a colour is changed. */
export function recoloured(value, table, coloured = false) {
  if (typeof value === "string") {
    return coloured ? value.replace(COLOUR, (found) => table[found.toLowerCase()] ?? found) : value;
  }
  if (Array.isArray(value)) return coloured || typeof value[0] === "object" ? value.map((item) => recoloured(item, table, coloured)) : value;
  if (value === null || typeof value !== "object" || ArrayBuffer.isView(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, recoloured(item, table, coloured || name.includes("color"))]));
}
