// Pieces of pages. Values become text nodes and attributes, never markup.

import { call, hasKey } from "./api.js";

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

export const hint = (text) => element("p", { class: "dim" }, text);

export function table(head, rows) {
  const cells = (kind, row) => row.map((cell) => element(kind, {}, cell ?? ""));
  return element("table", {},
    element("thead", {}, element("tr", {}, ...cells("th", head))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells("td", row)))));
}

/** Named values; those without one are left out. */
export function fields(values) {
  const rows = Object.entries(values).filter(([, value]) => value !== undefined && value !== "");
  return element("dl", {}, ...rows.flatMap(([name, value]) =>
    [element("dt", {}, name), element("dd", {}, value)]));
}

/** A value as text: texts as they are, everything else as JSON. */
const shown = (value) => typeof value === "string" ? value : JSON.stringify(value);

/** Characters of a value that are shown at once. */
const BRIEF = 1000;

/** A value; of a long one the beginning, and all of it when that is asked for. */
export function brief(value) {
  const text = shown(value);
  if (text.length <= BRIEF) return text;
  const begin = text.slice(0, BRIEF).replace(/[\ud800-\udbff]$/, "");
  const more = element("summary", {}, `show all ${text.length.toLocaleString()} characters`);
  const whole = element("details", {}, more);
  const cut = element("span", {}, `${begin}…`);
  whole.addEventListener("toggle", () => {
    cut.hidden = whole.open;
    // Put into the page only now: a long text takes the browser long.
    if (whole.open && whole.children.length < 2) whole.append(element("pre", { class: "value" }, text));
  });
  return element("div", {}, cut, whole);
}

/** A time where the reader is. */
export function when(time) {
  const at = Date.parse(time ?? "");
  return at > 0 ? new Date(at).toLocaleString() : "";
}

/** The time between two, or until now. */
export function since(from, to) {
  const begun = Date.parse(from ?? "");
  if (!(begun > 0)) return "";
  const ended = Date.parse(to ?? "");
  const seconds = Math.max(0, ((ended > 0 ? ended : Date.now()) - begun) / 1000);
  if (seconds < 10) return `${seconds.toFixed(1)}s`;
  if (seconds < 120) return `${Math.round(seconds)}s`;
  if (seconds < 7200) return `${Math.floor(seconds / 60)}m ${Math.floor(seconds % 60)}s`;
  return `${Math.floor(seconds / 3600)}h ${Math.floor(seconds / 60) % 60}m`;
}

/** The same by times of whole seconds. */
export function wholeSeconds(from, to) {
  const second = (time) => Math.floor((Date.parse(time ?? "") || 0) / 1000) * 1000;
  const [begun, ended] = [second(from), second(to) || second(new Date().toISOString())];
  if (!begun) return "";
  if (ended - begun < 1000) return "<1s";
  const short = ended - begun < 10000;
  return short ? `${(ended - begun) / 1000}s` : since(new Date(begun).toISOString(), new Date(ended).toISOString());
}

/** What a run's state is called: one that failed because it was cancelled is canceled. */
export function runState(run) {
  const state = (run.state ?? "pending").toLowerCase();
  return state === "failed" && run.error?.code === 1 ? "canceled" : state;
}

export const badge = (state) => element("span", { class: `state ${state}` }, state);
export const stateOf = (run) => badge(runState(run));

export function size(bytes) {
  let value = Number(bytes ?? 0);
  if (!value) return "";
  for (const unit of ["B", "kB", "MB", "GB"]) {
    if (value < 1000) return `${unit === "B" ? value : value.toFixed(1)}\u00a0${unit}`;
    value /= 1000;
  }
  return `${value.toFixed(1)} TB`;
}

/**
 * A link to an artifact's content. It opens as a page of no origin. A browser sends no key by itself,
 * so with one the content is fetched and saved: opened from here it would be a page of this origin.
 */
export function artifactLink(artifact) {
  const path = `apis/ferroflow/v1/artifacts/${artifact.artifact_id}/content`;
  if (!hasKey()) {
    return element("a", { href: path, target: "_blank", rel: "noopener" }, artifact.name);
  }
  const button = element("button", { title: "save it" }, artifact.name);
  button.addEventListener("click", async () => {
    try {
      const blob = await (await call(path)).blob();
      const address = URL.createObjectURL(blob);
      element("a", { href: address, download: artifact.name }).click();
      URL.revokeObjectURL(address);
    } catch (error) {
      button.after(hint(error.message));
    }
  });
  return button;
}
