// Talks to the console's routes. The session is a cookie that scripts cannot read; the CSRF token lives here only.

const ANSWER_WITHIN_MS = 4000; // a node that restarts lets connections wait; the page must not wait with them
const CHANGE_WITHIN_MS = 65000; // the node gives itself 60 s to go back

let csrfToken = "";

export class Problem extends Error {
  constructor(status, text, remedy) {
    super(text);
    this.status = status;
    this.remedy = remedy;
  }
}

async function call(path, body, withinMs = ANSWER_WITHIN_MS) {
  const options = {
    headers: { Accept: "application/json" }, cache: "no-store", credentials: "same-origin",
    signal: AbortSignal.timeout(withinMs),
  };
  if (body !== undefined) {
    options.method = "POST";
    options.headers["Content-Type"] = "application/json";
    options.headers["X-CSRF-Token"] = csrfToken;
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (response.status === 204) return null;
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Problem(response.status, answer.title ?? response.statusText, answer.remedy ?? "");
  return answer;
}

export async function resumeSession() {
  csrfToken = (await call("api/session")).csrf_token;
}

export async function signIn(token) {
  csrfToken = (await call("login", { token })).csrf_token;
}

export async function signOut() {
  await call("logout", {});
  csrfToken = "";
}

export const readStatus = () => call("api/status");

// Null when they are still those of `mark`.
export const readSettings = (mark) => call(`api/settings?unless=${encodeURIComponent(mark)}`);

export const planRollback = (version) => call("api/rollback", { version, dry_run: true }, CHANGE_WITHIN_MS);

export const rollBack = (version) => call("api/rollback", { version, dry_run: false }, CHANGE_WITHIN_MS);

// Null when they are still those of `mark`.
export const readExtensions = (mark) => call(`api/extensions?unless=${encodeURIComponent(mark)}`);

export const orderExtension = (order) => call("api/extensions", order, CHANGE_WITHIN_MS);

export const authoriseChannel = (socketId, channelName) =>
  call("auth", { socket_id: socketId, channel_name: channelName });
