// Calls of the platform: JSON, streams of events, logs.

/** The platform asks for a key that we do not have. */
export class NeedsKey extends Error {}

const KEY = "ferroflow-api-key";

export const setKey = (key) => sessionStorage.setItem(KEY, key);
export const hasKey = () => Boolean(sessionStorage.getItem(KEY));

/** A request below the place that this page is served from. */
export async function call(path, options = {}) {
  const key = sessionStorage.getItem(KEY);
  const headers = { ...options.headers };
  if (key) headers.authorization = `Bearer ${key}`;
  const response = await fetch(new URL(path, document.baseURI), { ...options, headers });
  if (response.ok) return response;
  if (response.status === 401) {
    sessionStorage.removeItem(KEY);
    throw new NeedsKey();
  }
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).message ?? text;
  } catch {
    // A proxy's own page.
  }
  throw new Error(message || `${path}: ${response.status}`);
}

export const get = async (path, signal) => (await call(path, { signal })).json();

/** Hands on the lines of a response as they come; the last one may be without an end. */
export async function lines(response, take) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) break;
    const parts = (rest + value).split("\n");
    rest = parts.pop();
    for (const line of parts) take(line);
  }
  if (rest) take(rest);
}

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/**
 * Calls `take` for each event below a subject, from the oldest that is kept. An interrupted stream
 * goes on where it was.
 */
export async function events(subject, signal, take) {
  let cursor = "";
  while (!signal.aborted) {
    try {
      const query = new URLSearchParams({ subject_prefix: subject, ...(cursor && { cursor }) });
      const response = await call(`apis/ferroflow/v1/events?${query}`, {
        signal,
        headers: { accept: "application/x-ndjson" },
      });
      await lines(response, (line) => {
        const message = JSON.parse(line);
        if (!message.event) return;
        cursor = message.cursor;
        take(message.event);
      });
    } catch (error) {
      if (signal.aborted || error instanceof NeedsKey) return;
    }
    await pause(1000);
  }
}
