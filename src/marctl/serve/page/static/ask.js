// Questions to the server. The newest one counts; what is asked before is given up, and its answer dropped.

const PAUSE = 100; // milliseconds between two pictures of one that is being drawn
const SLOW = 300; // milliseconds after which somebody who waits is told so
const AGAIN = 3; // seconds, where the server does not say when to ask again
const LATER = new Set([429, 502, 503, 504, 507]);

/** The server said no, or nothing: what it said, what to do, its status, and in how many seconds to ask again. */
export class Refusal extends Error {
  constructor(message, hint, { status = 0, again = null } = {}) {
    super(message);
    Object.assign(this, { hint, status, again });
  }
}

/** Asks one address about pictures, and tells `slow`, `answered` and `failed` what became of the newest. */
export class Asker {
  #url;
  #tell;
  #newest = new AbortController();
  #timer = null;

  constructor(url, tell) {
    this.#url = url;
    this.#tell = tell;
  }

  /** Ask soon: a drawing goes on, and not each of its points is worth a question. */
  soon(picture) {
    this.#timer ??= setTimeout(() => this.now(picture), PAUSE);
  }

  async now(picture) {
    this.stop();
    const { signal } = (this.#newest = new AbortController());
    const slow = setTimeout(() => signal.aborted || this.#tell.slow(), SLOW);
    const began = performance.now();
    try {
      const answer = await ask(this.#url, await picture(), signal);
      if (!signal.aborted) this.#tell.answered(answer, performance.now() - began);
    } catch (error) {
      if (!signal.aborted) this.#failed(error, picture);
    } finally {
      clearTimeout(slow);
    }
  }

  /** Forget what was asked. */
  stop() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#newest.abort();
  }

  #failed(error, picture) {
    if (!(error instanceof Refusal)) throw error;
    if (error.again !== null) this.#timer = setTimeout(() => this.now(picture), error.again * 1000);
    this.#tell.failed(error);
  }
}

async function ask(url, picture, signal) {
  // Read first: sent as it is, a file that is gone would look like a server that is.
  const body = await picture.arrayBuffer().catch(() => {
    throw new Refusal("This file cannot be read.", "It may have been moved or changed; choose it anew.");
  });
  const reply = await fetch(url, { method: "POST", body, signal }).catch((error) => {
    if (signal.aborted) throw error;
    throw new Refusal("The server does not answer.", "Is it still up? It is asked again by itself.", { again: AGAIN });
  });
  const told = await said(reply);
  if (!reply.ok) throw refusal(reply, told);
  if (typeof told !== "object" || told === null) {
    throw new Refusal("The server answers something else than JSON.", "Its archive may be older than this page.");
  }
  return told;
}

async function said(reply) {
  const text = await reply.text();
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Three ways to say no: ours, TorchServe's own, and a sentence. */
function refusal(reply, told) {
  const { status } = reply;
  const message = told?.error?.message ?? told?.message ?? told;
  const hint = told?.error?.hint ?? "";
  const wait = Number(reply.headers.get("Retry-After")) || AGAIN;
  const again = LATER.has(status) ? wait : null;
  return new Refusal(sentence(message || `The server answers ${status}.`), sentence(hint), { status, again });
}

function sentence(text) {
  const whole = String(text).trim();
  return whole && whole[0].toUpperCase() + whole.slice(1);
}
