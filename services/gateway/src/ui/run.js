// The page of a run: its tasks with values and logs, metrics, artifacts; live until it ends.

import {
  artifactLink, badge, brief, element, fields, hint, runState, since, size, stateOf, table, when,
  wholeSeconds,
} from "./dom.js";
import { call, events, get, lines } from "./api.js";

const ENDED = ["succeeded", "failed", "canceled"];
/** Lines of a log that are kept on the page. */
const LINES_MAX = 5000;
/** Failed tasks that are shown open from the beginning. */
const FAILED_MAX = 2;
/** Tasks that run something. */
const HAS_LOG = ["CONTAINER", "IMPORTER"];

let noise;

/**
 * What of a line is output, and null of one that the SDK's bootstrap prints; the rules are those of the
 * command line.
 */
async function noiseFilter() {
  noise ??= (await get("ui/log-noise.json")).map((rule) => ({
    begin: new RegExp(rule.begin),
    body: rule.until && { within: new RegExp(rule.within), until: new RegExp(rule.until) },
    next: rule.next && new RegExp(rule.next),
    tail: rule.tail && new RegExp(rule.tail),
  }));
  // A message after output whose line was not ended.
  const withoutTail = (line) => {
    const tail = noise.find((one) => one.tail?.test(line))?.tail;
    return tail ? line.slice(0, line.search(tail)) : line;
  };
  let body = null;
  let next = null;
  return (line) => {
    if (body) {
      const isWithin = body.within.test(line);
      if (!isWithin || body.until.test(line)) body = null;
      if (isWithin) return null;
    }
    const following = next;
    next = null;
    if (following?.test(line)) return null;
    const rule = noise.find((one) => one.begin.test(line));
    body = rule?.body ?? null;
    next = body ? null : rule?.next ?? null;
    return rule ? null : withoutTail(line);
  };
}

/** The log of a task's attempt, followed until the attempt ends. */
function logOf(run, task, signal) {
  const text = element("pre", { class: "log" });
  const raw = element("input", { type: "checkbox" });
  const attempts = element("select");
  for (let at = Math.max(1, task.attempt ?? 1); at >= 1; at--) {
    attempts.append(element("option", { value: at }, `attempt ${at}`));
  }
  let reading = new AbortController();
  async function read() {
    reading.abort();
    reading = new AbortController();
    signal.addEventListener("abort", () => reading.abort(), { once: true });
    const own = reading;
    text.replaceChildren();
    const output = raw.checked ? (line) => line : await noiseFilter();
    const attempt = task.attempt ? `&attempt=${attempts.value}` : "";
    const path = `apis/ferroflow/v1/runs/${run}/tasks/${task.task_id}/log?follow=true${attempt}`;
    try {
      const response = await call(path, { signal: own.signal });
      await lines(response, (printed) => {
        const line = output(printed);
        if (own.signal.aborted || line === null) return;
        const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 4;
        text.append(`${line}\n`);
        if (text.childNodes.length > LINES_MAX) text.firstChild.remove();
        if (atEnd) text.scrollTop = text.scrollHeight;
      });
      if (!text.hasChildNodes()) text.append("(nothing was printed)");
    } catch (error) {
      if (!own.signal.aborted) text.append(error.message);
    }
  }
  raw.addEventListener("change", read);
  attempts.addEventListener("change", read);
  read();
  return element("div", {},
    element("label", {}, raw, " with the SDK's own messages "),
    (task.attempt ?? 0) > 1 ? attempts : "",
    text);
}

function valueList(title, values) {
  const entries = Object.entries(values ?? {});
  if (!entries.length) return "";
  return element("div", {}, element("b", {}, title),
    fields(Object.fromEntries(entries.map(([name, value]) => [name, brief(value)]))));
}

/** A run's parameters with the defaults of those it was not given, as its root task has them. */
const parametersOf = (run, root) => ({ ...run.runtime_config?.parameters, ...root?.input_parameters });

/**
 * How long a run takes. The times of runs are whole seconds; those of its root task, which begins and
 * ends with it, are more exact.
 */
function lengthOf(run, root) {
  const second = (time) => Math.floor((Date.parse(time ?? "") || 0) / 1000);
  const isExact = root && second(root.created_at) === second(run.created_at)
    && second(root.finished_at) === second(run.finished_at);
  return isExact ? since(root.created_at, root.finished_at)
    : wholeSeconds(run.created_at, run.finished_at);
}

const failure = (error) => error?.message ? element("p", { class: "problem" }, error.message) : "";

/** Parents before children, siblings in the order in which they began. */
function inOrder(tasks) {
  const children = Map.groupBy(tasks, (task) => task.parent_task_id ?? "");
  const start = (task) => Date.parse(task.started_at ?? "") || Infinity;
  const ordered = [];
  const visit = (parent) => {
    const below = children.get(parent) ?? [];
    below.sort((one, other) => start(one) - start(other)
      || (one.iteration_index ?? 0) - (other.iteration_index ?? 0)
      || one.path.localeCompare(other.path));
    for (const task of below) {
      ordered.push(task);
      visit(task.task_id);
    }
  };
  visit("");
  return ordered;
}

const noteOf = (task) =>
  task.note || task.error?.message || task.cache?.reason || "";

/** Rows of tasks. They stay the same elements when the run moves on, so that open logs stay open. */
class TaskTable {
  constructor(run, signal) {
    this.run = run;
    this.signal = signal;
    this.rows = new Map();
    this.opened = 0;
    this.body = element("tbody");
    this.table = element("table", {},
      element("thead", {}, element("tr", {},
        ...["Task", "State", "Took", "Note"].map((head) => element("th", {}, head)))),
      this.body);
  }

  update(tasks, artifacts) {
    this.artifacts = artifacts;
    const ordered = inOrder(tasks).filter((task) => task.path !== "root");
    const wanted = ordered.flatMap((task) => {
      const row = this.rows.get(task.task_id) ?? this.add(task.task_id);
      row.task = task;
      const depth = task.path.split(".").length - 2;
      row.name.textContent = task.iteration_index === undefined ? task.display_name || task.name
        : `#${task.iteration_index}`;
      row.name.style.marginLeft = `${depth * 1.2}rem`;
      row.state.replaceChildren(badge(task.state?.toLowerCase() ?? "pending"));
      row.took.textContent = task.started_at ? since(task.started_at, task.finished_at) : "";
      row.note.textContent = noteOf(task);
      // Why a run failed is what its page is opened for.
      if (task.state === "FAILED" && HAS_LOG.includes(task.type) && !row.shownState
        && this.opened < FAILED_MAX) {
        this.opened++;
        this.open(row);
      }
      if (row.detail && row.shownState !== task.state + task.attempt) this.open(row);
      return row.detail ? [row.line, row.detail] : [row.line];
    });
    // Only what is out of place is moved: a moved element loses its scroll position.
    wanted.forEach((line, at) => {
      if (this.body.children[at] !== line) this.body.insertBefore(line, this.body.children[at] ?? null);
    });
    while (this.body.children.length > wanted.length) this.body.lastChild.remove();
  }

  add(id) {
    const row = { name: element("button"), state: element("td", { class: "nowrap" }), took: element("td", { class: "nowrap" }), note: element("td") };
    row.line = element("tr", {}, element("td", {}, row.name), row.state, row.took, row.note);
    row.name.addEventListener("click", () => {
      if (row.detail) {
        row.ended.abort();
        row.detail.remove();
        row.detail = null;
      } else {
        this.open(row);
      }
    });
    this.rows.set(id, row);
    return row;
  }

  open(row) {
    const { task } = row;
    row.ended?.abort();
    row.ended = new AbortController();
    this.signal.addEventListener("abort", () => row.ended.abort(), { once: true });
    row.shownState = task.state + task.attempt;
    const ids = new Set(Object.values(task.output_artifacts ?? {}).flatMap((refs) => refs.ids ?? []));
    const made = this.artifacts.filter((one) => ids.has(one.artifact_id));
    const hasLog = HAS_LOG.includes(task.type) && (task.attempt || task.state === "CACHED");
    const cell = element("td", { colspan: 4 },
      failure(task.error),
      valueList("Inputs", task.input_parameters),
      valueList("Outputs", task.output_parameters),
      made.length ? element("div", {}, element("b", {}, "Artifacts"), artifactTable(made)) : "",
      hasLog ? logOf(this.run, task, row.ended.signal) : "");
    const detail = element("tr", { class: "detail" }, cell);
    if (row.detail) row.detail.replaceWith(detail);
    else row.line.after(detail);
    row.detail = detail;
  }
}

const isMetrics = (artifact) => /^system\..*Metrics$/.test(artifact.type ?? "");

const artifactTable = (artifacts) => table(["Artifact", "Type", "Size", "Where"],
  artifacts.map((one) => [artifactLink(one), (one.type ?? "").replace("system.", ""),
    size(one.size_bytes), element("code", {}, one.uri ?? "")]));

function metricsTable(artifacts, makers) {
  const rows = artifacts.filter(isMetrics).flatMap((one) => Object.entries(one.metadata ?? {})
    .filter(([name, value]) => typeof value !== "object" && name !== "display_name")
    .map(([name, value]) => [makers.get(one.artifact_id) ?? "", name, brief(value)]));
  return rows.length ? element("div", {}, element("h2", {}, "Metrics"),
    table(["Task", "Metric", "Value"], rows)) : "";
}

/** Every artifact of the run; results that were reused are another run's. */
async function artifactsOf(id, tasks, known, signal) {
  const wanted = new Set(tasks.flatMap((task) =>
    Object.values(task.output_artifacts ?? {}).flatMap((refs) => refs.ids ?? [])));
  let token = "";
  if ([...wanted].some((one) => !known.has(one))) {
    do {
      const page = await get(`apis/ferroflow/v1/artifacts?run_id=${id}&page_token=${encodeURIComponent(token)}`, signal);
      for (const one of page.artifacts ?? []) known.set(one.artifact_id, one);
      token = page.next_page_token ?? "";
    } while (token);
  }
  for (const one of wanted) {
    if (!known.has(one)) known.set(one, await get(`apis/ferroflow/v1/artifacts/${one}`, signal));
  }
  return [...known.values()].sort((one, other) => one.artifact_id - other.artifact_id);
}

function makersOf(tasks) {
  const makers = new Map();
  for (const task of tasks) {
    if (task.path === "root") continue;
    for (const refs of Object.values(task.output_artifacts ?? {})) {
      for (const id of refs.ids ?? []) makers.set(id, task.path.replace(/^root\./, ""));
    }
  }
  return makers;
}

function head(run, root, experiment) {
  return element("div", {},
    element("h1", {}, run.display_name, " ", stateOf(run)),
    runState(run) === "failed" && run.error ? element("p", { class: "problem" }, run.error.message) : "",
    fields({
      ID: run.run_id,
      Experiment: element("a", { href: `#/experiments/details/${run.experiment_id}` }, experiment),
      Description: run.description,
      Created: when(run.created_at),
      [ENDED.includes(runState(run)) ? "Took" : "For"]: lengthOf(run, root),
    }));
}

export async function runPage(id, signal) {
  let run = await get(`apis/v2beta1/runs/${id}`, signal);
  document.title = `${run.display_name} · Ferroflow`;
  const experiment = await get(`apis/v2beta1/experiments/${run.experiment_id}`, signal)
    .then((one) => one.display_name, () => run.experiment_id);
  const tasks = new TaskTable(id, signal);
  const [top, parameters, metrics, outputs, artifacts] = [0, 1, 2, 3, 4].map(() => element("div"));
  let given = "";
  const known = new Map();
  async function update() {
    run = await get(`apis/v2beta1/runs/${id}`, signal);
    const all = (await get(`apis/ferroflow/v1/runs/${id}/tasks`, signal)).tasks ?? [];
    const made = await artifactsOf(id, all, known, signal);
    const root = all.find((task) => task.path === "root");
    top.replaceChildren(head(run, root, experiment));
    // They stay the same elements, so that a long one that is open stays open.
    const values = parametersOf(run, root);
    if (JSON.stringify(values) !== given) {
      given = JSON.stringify(values);
      parameters.replaceChildren(valueList("Parameters", values));
    }
    tasks.update(all, made);
    metrics.replaceChildren(metricsTable(made, makersOf(all)));
    const results = root?.output_parameters ?? {};
    outputs.replaceChildren(Object.keys(results).length
      ? element("div", {}, element("h2", {}, "Outputs"), valueList("", results)) : "");
    artifacts.replaceChildren(made.length
      ? element("div", {}, element("h2", {}, "Artifacts"), artifactTable(made)) : "");
  }
  await update();
  live(id, signal, update, () => ENDED.includes(runState(run)));
  return element("section", {}, top, parameters, element("h2", {}, "Tasks"), tasks.table,
    hint("A task's name shows its values and its log."), metrics, outputs, artifacts);
}

/** Updates after events, one update at a time, and no more often than the platform answers well. */
function live(id, signal, update, hasEnded) {
  let wanted = false;
  let busy = false;
  async function go() {
    wanted = true;
    if (busy) return;
    busy = true;
    while (wanted && !signal.aborted) {
      wanted = false;
      const begun = Date.now();
      await update().catch(() => {});
      await new Promise((resolve) => setTimeout(resolve, Math.max(200, 3 * (Date.now() - begun))));
    }
    busy = false;
  }
  events(`namespaces/default/runs/${id}`, signal, go);
  // Durations of what is under way go on.
  const clock = setInterval(() => {
    if (signal.aborted) clearInterval(clock);
    else if (!hasEnded()) go();
  }, 5000);
}
