// Plain pages for the links that clients print: a run, an experiment, a pipeline, and their lists.
// Nothing here is built; text from the platform only ever becomes text nodes.

import { element, fields, hint, stateOf, table, when, wholeSeconds } from "./dom.js";
import { get, NeedsKey, setKey } from "./api.js";
import { runPage } from "./run.js";

const main = document.getElementById("main");

// What the page that is shown has under way; ended when another one is.
let current = new AbortController();

const runRow = (run) => [
  element("a", { href: `#/runs/details/${run.run_id}` }, run.display_name),
  stateOf(run),
  when(run.created_at),
  wholeSeconds(run.created_at, run.finished_at),
];

const runTable = (runs) =>
  runs.length ? table(["Run", "State", "Created", "Took"], runs.map(runRow)) : hint("no runs");

/** Between two looks at a list that may have grown, in milliseconds. */
const LOOK = 5000;

// A list whose pages are added below one another. The first page is looked at again and again, as
// long as no other one is shown.
async function list(title, path, key, page, signal) {
  const place = element("div");
  const more = element("button", {}, "more");
  let token = "";
  async function next(shown) {
    const separator = path.includes("?") ? "&" : "?";
    const query = `${separator}page_size=50&sort_by=created_at%20desc` +
      (token ? `&page_token=${encodeURIComponent(token)}` : "");
    const found = await get(path + query, signal);
    shown(page(found[key] ?? []));
    token = found.next_page_token ?? "";
    more.hidden = !token;
  }
  const first = () => {
    token = "";
    return next((rows) => place.replaceChildren(rows));
  };
  const clock = setInterval(() => {
    if (signal.aborted) clearInterval(clock);
    else first().catch(() => {});
  }, LOOK);
  more.addEventListener("click", () => {
    clearInterval(clock);
    next((rows) => place.append(rows)).catch(failed);
  });
  await first();
  return element("section", {}, title ? element("h1", {}, title) : "", place, more);
}

const runs = (signal) => list("Runs", "apis/v2beta1/runs", "runs", runTable, signal);

const experimentRow = (one) => [
  element("a", { href: `#/experiments/details/${one.experiment_id}` }, one.display_name),
  (one.storage_state ?? "").toLowerCase(),
  when(one.last_run_created_at),
];

const experiments = (signal) =>
  list("Experiments", "apis/v2beta1/experiments", "experiments",
    (page) => table(["Experiment", "State", "Last run"], page.map(experimentRow)), signal);

const pipelineRow = (one) => [
  element("a", { href: `#/pipelines/details/${one.pipeline_id}` }, one.display_name),
  one.description ?? "",
  when(one.created_at),
];

const pipelines = (signal) =>
  list("Pipelines", "apis/v2beta1/pipelines", "pipelines",
    (page) => page.length ? table(["Pipeline", "Description", "Created"], page.map(pipelineRow))
      : hint("no pipelines"), signal);

async function experimentPage(id, signal) {
  const one = await get(`apis/v2beta1/experiments/${encodeURIComponent(id)}`, signal);
  document.title = `${one.display_name} · Ferroflow`;
  const path = `apis/v2beta1/runs?experiment_id=${encodeURIComponent(id)}`;
  return element("section", {},
    element("h1", {}, one.display_name),
    fields({ ID: id, Description: one.description, Created: when(one.created_at) }),
    element("h2", {}, "Runs"),
    await list("", path, "runs", runTable, signal));
}

async function pipelinePage(id, signal) {
  const one = await get(`apis/v2beta1/pipelines/${encodeURIComponent(id)}`, signal);
  document.title = `${one.display_name} · Ferroflow`;
  const rows = (version) => [version.display_name, version.pipeline_version_id, when(version.created_at)];
  const versions = await list("", `apis/v2beta1/pipelines/${encodeURIComponent(id)}/versions`, "pipeline_versions",
    (page) => table(["Version", "ID", "Created"], page.map(rows)), signal);
  return element("section", {},
    element("h1", {}, one.display_name),
    fields({ ID: id, Description: one.description, Created: when(one.created_at) }),
    element("h2", {}, "Versions"),
    versions);
}

async function home(signal) {
  const here = new URL(".", document.baseURI).href.replace(/\/$/, "");
  return element("section", {},
    element("h1", {}, "Ferroflow is running"),
    element("p", {}, "Point the stock SDK here: ",
      element("code", {}, `kfp.Client(host="${here}")`), ", or use ",
      element("code", {}, "ferroflow run list"), "."),
    await runs(signal));
}

// The key is kept for this tab only, and pages of artifacts cannot reach it: they are sandboxed.
function askForKey() {
  const input = element("input", { type: "password", autocomplete: "off", "aria-label": "API key" });
  const form = element("form", {},
    element("p", {}, "This platform asks for an API key. It is kept until this tab is closed."),
    input, " ", element("button", {}, "Go on"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(input.value.trim());
    show();
  });
  main.replaceChildren(form);
  input.focus();
}

function failed(error) {
  if (error instanceof NeedsKey) {
    askForKey();
  } else if (error.name !== "AbortError") {
    main.prepend(element("p", { class: "problem" }, error.message));
  }
}

function pageFor(parts, signal) {
  const [kind, details, id] = parts;
  if (!kind) return home(signal);
  if (details === undefined) {
    if (kind === "runs") return runs(signal);
    if (kind === "experiments") return experiments(signal);
    if (kind === "pipelines") return pipelines(signal);
  }
  if (details === "details" && id) {
    if (kind === "runs") return runPage(encodeURIComponent(id), signal);
    if (kind === "experiments") return experimentPage(id, signal);
    if (kind === "pipelines") return pipelinePage(id, signal);
  }
  return hint(`There is no page #/${parts.join("/")}: runs, experiments and pipelines have one.`);
}

async function show() {
  current.abort();
  current = new AbortController();
  const signal = current.signal;
  document.title = "Ferroflow";
  try {
    const parts = location.hash.replace(/^#\/?/, "").split("/").filter(Boolean).map(decodeURIComponent);
    const page = await pageFor(parts, signal);
    if (!signal.aborted) main.replaceChildren(page);
  } catch (error) {
    if (!signal.aborted) {
      main.replaceChildren();
      failed(error);
    }
  }
}

addEventListener("hashchange", show);
show();
