// Elements and words. Texts become text nodes, so that no name is ever read as HTML.

export const SIGNS = { good: "✓", watch: "▲", bad: "✕", open: "○", critical: "✕", warning: "▲", info: "●", "": "" };
export const SPOKEN = { good: "good", watch: "worth watching", bad: "bad", open: "open", critical: "critical", warning: "warning", info: "note", "": "" };

/** An element with its attributes (`on…` are listeners) and children; what is missing is left out. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(name, value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

/** A number with three significant digits; far from one with an exponent. */
export function shown(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e5)) return value.toExponential(digits - 1).replace("e+", "e");
  return size >= 10 ** digits ? String(Math.round(value)) : Number(value.toPrecision(digits)).toString();
}

/** An epoch, step or count: whole numbers in full, others with two decimals, as `epoch_text` in detectors/base.py. */
export function counted(value) {
  if (Number.isInteger(value)) return value.toLocaleString("en");
  return Math.abs(value) < 0.01 ? value.toPrecision(2) : Number(value.toFixed(2)).toString();
}

/** A name that may be broken after its dots, slashes and underscores. */
export function breakable(name) {
  return name.split(/(?<=[./_])/).flatMap((piece, at) => (at ? [document.createElement("wbr"), piece] : [piece]));
}

/** A text with names in backticks, as code elements. */
export function rich(text) {
  return text.split("`").map((part, at) => (at % 2 ? element("code", {}, part) : part));
}

/** A formula with its powers raised and its indices lowered. */
export function formula(text) {
  return text.split(/(\^\{[^}]*\}|\^[−-]?[\p{L}\d.]+|_\d\b)/u).map((piece) => {
    if (piece[0] === "^" && piece.length > 1) return element("sup", {}, piece.slice(1).replace(/[{}]/g, ""));
    return /^_\d$/.test(piece) ? element("sub", {}, piece.slice(1)) : piece;
  });
}

/** A sign that is seen and, in words, heard. */
export function sign(kind) {
  return SIGNS[kind] ? element("span", { class: `sign ${kind}`, role: "img", "aria-label": SPOKEN[kind] }, SIGNS[kind]) : "";
}

/** The child of `parent` called `name`, created on first use: kept over refreshes, so that focus and scroll stay. */
export function part(parent, name, tag = "div") {
  let found = parent.querySelector(`:scope > [data-part="${name}"]`);
  if (!found) {
    found = element(tag, { "data-part": name });
    parent.append(found);
  }
  return found;
}

const FOCUSABLE = "button, input, select, summary, [tabindex]";
const known = (found) => `${found.tagName} ${found.dataset.key ?? found.getAttribute("aria-label") ?? found.name ?? ""} ${found.dataset.key ? "" : found.textContent}`;

/** Put other children into `place`; what had the focus has it again, so that the keyboard does not lose its place. */
export function refill(place, ...children) {
  const held = place.contains(document.activeElement) ? document.activeElement : null;
  const at = held ? [...place.querySelectorAll(FOCUSABLE)].indexOf(held) : -1;
  place.replaceChildren(...children);
  if (at < 0) return;
  const now = [...place.querySelectorAll(FOCUSABLE)].filter((found) => !found.disabled);
  (now.find((found) => known(found) === known(held)) ?? now[Math.min(at, now.length - 1)])?.focus({ preventScroll: true });
}

/** A labelled list to choose from. */
export function select(name, options, value, take) {
  const items = options.map((option) => (Array.isArray(option) ? option : [option, option]));
  const made = element("select", { name, onchange: (event) => take(event.target.value) },
    ...items.map(([key, text]) => element("option", { value: key }, text)));
  made.value = value;
  return element("label", {}, `${name} `, made);
}

/** A labelled box to tick. */
export function tick(name, text, value, take, title = "") {
  const box = element("input", { type: "checkbox", name, onchange: (event) => take(event.target.checked) });
  box.checked = value;
  return element("label", { title }, box, ` ${text}`);
}
