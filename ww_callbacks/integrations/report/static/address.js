// What is looked at, in the address: it survives a reload and can be sent to others. TensorBoard's own address has it
// as `p.spectra.…`, a page by itself behind the `#`.

const PREFIX = "p.spectra.";

function framed() {
  try {
    return window.parent !== window && window.parent.location.href ? window.parent : null;
  } catch {
    return null; // another origin's frame
  }
}

/** Name → text, as the address says; a list is `listed` text. */
export function readAddress() {
  const outer = framed();
  const found = {};
  const given = outer ? new URLSearchParams(outer.location.search) : new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of given) {
    const name = outer ? (key.startsWith(PREFIX) ? key.slice(PREFIX.length) : null) : key;
    if (name) found[name] = value;
  }
  return found;
}

/** Texts as one: TensorBoard keeps one value a name. */
export function listed(texts) {
  return texts.map(encodeURIComponent).join(",");
}

export function unlisted(text) {
  return text ? text.split(",").map(decodeURIComponent) : [];
}

/** Put `values` (name → text, or null for what goes without saying) into the address. */
export function writeAddress(values) {
  const outer = framed();
  const query = new URLSearchParams(outer ? outer.location.search : "");
  for (const key of [...query.keys()]) if (key.startsWith(PREFIX)) query.delete(key);
  for (const [name, value] of Object.entries(values)) {
    if (value !== null && value !== undefined && value !== "") query.set(outer ? PREFIX + name : name, value);
  }
  const text = query.toString();
  if (outer) {
    const { pathname, hash, search } = outer.location;
    const next = text ? `?${text}` : "";
    if (next !== search) outer.history.replaceState(outer.history.state, "", `${pathname}${next}${hash}`);
  } else if (text !== location.hash.slice(1)) {
    history.replaceState(null, "", `${location.pathname}${location.search}${text ? `#${text}` : ""}`);
  }
}
