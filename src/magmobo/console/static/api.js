// Talks to the console's routes. The session is a cookie that scripts cannot read; the CSRF token lives here only.

const ANSWER_WITHIN_MS = 4000; // a node that restarts lets connections wait; the page must not wait with them

let csrfToken = "";

export class Problem extends Error {
  constructor(status, text, remedy) {
    super(text);
    this.status = status;
    this.remedy = remedy;
  }
}

async function call(path, body) {
  const options = {
    headers: { Accept: "application/json" }, cache: "no-store", credentials: "same-origin",
    signal: AbortSignal.timeout(ANSWER_WITHIN_MS),
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

export const authoriseChannel = (socketId, channelName) =>
  call("auth", { socket_id: socketId, channel_name: channelName });
