// Requests to the server. Only the newest counts; earlier ones are aborted.

const PAUSE = 100; // milliseconds between two requests during drawing
const SLOW = 300; // milliseconds before the page shows that it is waiting
const AGAIN = 3; // seconds before a retry, if the server sends no Retry-After
const LATER = new Set([429, 502, 503, 504, 507]);

/** An error or no answer: message, hint, HTTP status, and seconds until a retry; null if there is none. */
export class Refusal extends Error {
  constructor(message, hint, { status = 0, again = null } = {}) {
    super(message);
    Object.assign(this, { hint, status, again });
  }
}

/** Sends pictures to one address, and calls `slow`, `answered` or `failed` for the newest. */
export class Asker {
  #url;
  #report;
  #newest = new AbortController();
  #timer = null;

  constructor(url, report) {
    this.#url = url;
    this.#report = report;
  }

  /** Ask soon, so that drawing does not send a request per point. */
  soon(picture) {
    this.#timer ??= setTimeout(() => this.now(picture), PAUSE);
  }

  async now(picture) {
    this.stop();
    const { signal } = (this.#newest = new AbortController());
    const slow = setTimeout(() => signal.aborted || this.#report.slow(), SLOW);
    const began = performance.now();
    try {
      const answer = await ask(this.#url, await picture(), signal);
      if (!signal.aborted) this.#report.answered(answer, performance.now() - began);
    } catch (error) {
      if (!signal.aborted) this.#failed(error, picture);
    } finally {
      clearTimeout(slow);
    }
  }

  /** Abort the request. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#newest.abort();
  }

  #failed(error, picture) {
    if (!(error instanceof Refusal)) throw error;
    if (error.again !== null) this.#timer = setTimeout(() => this.now(picture), error.again * 1000);
    this.#report.failed(error);
  }
}

async function ask(url, picture, signal) {
  // Read the file first: if it is gone, sending it would fail as if the server were.
  const body = await picture.arrayBuffer().catch(() => {
    throw new Refusal("This file cannot be read.", "It may have been moved or changed; choose it again.");
  });
  const reply = await fetch(url, { method: "POST", body, signal }).catch((error) => {
    if (signal.aborted) throw error;
    throw new Refusal("The server does not answer.", "Is it still running? This page keeps trying.", { again: AGAIN });
  });
  const content = await contentOf(reply);
  if (!reply.ok) throw refusal(reply, content);
  if (typeof content !== "object" || content === null) {
    throw new Refusal("The server's answer is not JSON.", "Its archive may be older than this page.");
  }
  return content;
}

async function contentOf(reply) {
  const text = await reply.text();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Errors have three forms: ours, TorchServe's, and plain text. */
function refusal(reply, content) {
  const { status } = reply;
  const message = content?.error?.message ?? content?.message ?? content;
  const hint = content?.error?.hint ?? "";
  const wait = Number(reply.headers.get("Retry-After")) || AGAIN;
  const again = LATER.has(status) ? wait : null;
  return new Refusal(sentence(message || `The server answers ${status}.`), sentence(hint), { status, again });
}

function sentence(text) {
  const whole = String(text).trim();
  return whole && whole[0].toUpperCase() + whole.slice(1);
}
