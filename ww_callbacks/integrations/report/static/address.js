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

/** Name → values, as the address says. */
export function readAddress() {
  const outer = framed();
  const found = {};
  const given = outer ? new URLSearchParams(outer.location.search) : new URLSearchParams(location.hash.slice(1));
  for (const [key, value] of given) {
    const name = outer ? (key.startsWith(PREFIX) ? key.slice(PREFIX.length) : null) : key;
    if (name) (found[name] ??= []).push(value);
  }
  return found;
}

/** Put `values` (name → text, list of texts, or null for what goes without saying) into the address. */
export function writeAddress(values) {
  const outer = framed();
  const query = new URLSearchParams(outer ? outer.location.search : "");
  for (const key of [...query.keys()]) if (key.startsWith(PREFIX)) query.delete(key);
  for (const [name, value] of Object.entries(values)) {
    for (const item of [value].flat()) {
      if (item !== null && item !== undefined && item !== "") query.append(outer ? PREFIX + name : name, item);
    }
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
