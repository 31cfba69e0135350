// The page: sign in, then ask for the node's status every two seconds and follow its changes.

import { readStatus, resumeSession, signIn, signOut } from "./api.js";
import { Feed, tableOf } from "./feed.js";
import { drawNode, forgetNode } from "./node.js";
import { Ticker } from "./ticker.js";

const STATUS_EVERY_MS = 2000;
const CONNECTION = {
  connected: ["good", "connected"], connecting: ["warn", "connecting"], initialized: ["warn", "connecting"],
  unavailable: ["bad", "no connection"], disconnected: ["", "not connected"], failed: ["bad", "no WebSocket here"],
};

const byId = (id) => document.getElementById(id);
const ticker = new Ticker();
const feed = new Feed(ticker, showConnection);
let poll = 0;

function showConnection(state, text) {
  const [tone, usual] = CONNECTION[state] ?? ["warn", state];
  byId("connection").className = `pill ${tone}`;
  byId("connection").textContent = text ?? usual;
}

function showLogin(problem = "") {
  clearTimeout(poll);
  feed.stop();
  ticker.stop();
  forgetNode();
  byId("dashboard").hidden = byId("sign-out").hidden = true;
  byId("login").hidden = false;
  byId("login-problem").textContent = problem;
  byId("token").value = "";
  byId("token").focus();
}

function showDashboard() {
  byId("login").hidden = true;
  byId("dashboard").hidden = byId("sign-out").hidden = false;
  byId("token").value = "";
  ticker.start();
  refresh();
}

function followChanges(realtime) {
  if (!realtime.available) {
    feed.stop();
    showConnection("unavailable", "not available");
    byId("channels").textContent = realtime.reason;
    return;
  }
  const { app_key: appKey, channels } = realtime;
  byId("channels").textContent = channels.length
    ? `Following ${channels.map(tableOf).join(", ")}.`
    : "No table is published. List tables under [magws] in mag.toml.";
  feed.follow(appKey, channels);
}

async function refresh() {
  clearTimeout(poll);
  try {
    const { node, realtime } = await readStatus();
    drawNode(node);
    followChanges(realtime);
    byId("offline").hidden = true;
  } catch (problem) {
    if (problem.status === 401) return showLogin("Your session has ended.");
    byId("offline").hidden = false;
  }
  poll = setTimeout(refresh, STATUS_EVERY_MS);
}

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = event.target.querySelector("button");
  button.disabled = true;
  try {
    await signIn(byId("token").value.trim());
    showDashboard();
    byId("main").focus({ preventScroll: true }); // else the bar covers the figures
  } catch (problem) {
    byId("login-problem").textContent = [problem.message, problem.remedy].filter(Boolean).join(". ");
    byId("token").select();
  } finally {
    button.disabled = false;
  }
});

byId("sign-out").addEventListener("click", async () => {
  await signOut().catch(() => {}); // the page forgets everything either way
  showLogin();
});
byId("pause").addEventListener("click", () => ticker.togglePause());
byId("clear").addEventListener("click", () => ticker.clear());

resumeSession().then(showDashboard, (problem) => showLogin(problem.status === 401 ? "" : problem.message));
