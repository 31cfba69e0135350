// The page: sign in, then ask for the node's status every two seconds and follow its changes. The settings are asked
// for with it while they are looked at.

import { readExtensions, readSettings, readStatus, resumeSession, signIn, signOut } from "./api.js";
import { drawExtensions, extensionsMark, forgetExtensions } from "./extensions.js";
import { Feed, tableOf } from "./feed.js";
import { drawNode, forgetNode } from "./node.js";
import { closeOrder } from "./order.js";
import { closeRollback } from "./rollback.js";
import { drawSettings, forgetSettings, settingsMark } from "./settings.js";
import { Ticker } from "./ticker.js";

const STATUS_EVERY_MS = 2000;
const VIEWS = ["overview", "extensions", "settings"];
const CONNECTION = {
  connected: ["good", "connected"], connecting: ["warn", "connecting"], initialized: ["warn", "connecting"],
  unavailable: ["bad", "no connection"], disconnected: ["", "not connected"], failed: ["bad", "no WebSocket here"],
};

const byId = (id) => document.getElementById(id);
const ticker = new Ticker();
const feed = new Feed(ticker, showConnection);
let poll = 0;
let round = 0; // of questions to the node; a newer one makes the answers to the older one void
let view = VIEWS[0];

function showConnection(state, text) {
  const [tone, usual] = CONNECTION[state] ?? ["warn", state];
  byId("connection").className = `pill ${tone}`;
  byId("connection").textContent = text ?? usual;
}

function showLogin(problem = "") {
  clearTimeout(poll);
  round += 1;
  feed.stop();
  ticker.stop();
  forgetNode();
  forgetSettings();
  forgetExtensions();
  closeOrder();
  closeRollback();
  byId("dashboard").hidden = byId("sign-out").hidden = byId("views").hidden = true;
  byId("login").hidden = false;
  byId("login-problem").textContent = problem;
  byId("token").value = "";
  byId("token").focus();
}

function showDashboard() {
  byId("login").hidden = true;
  byId("dashboard").hidden = byId("sign-out").hidden = byId("views").hidden = false;
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

const LOOKS = {
  settings: [readSettings, settingsMark, drawSettings], extensions: [readExtensions, extensionsMark, drawExtensions],
};

async function refreshView(mine) {
  const [read, mark, draw] = LOOKS[view];
  const line = byId(`${view}-problem`);
  try {
    const found = await read(mark());
    if (found && mine === round) draw(found, refresh);
    line.hidden = true;
  } catch (problem) {
    if (problem.status === 401) throw problem;
    line.textContent = [problem.message, problem.remedy].filter(Boolean).join(". ");
    line.hidden = !problem.status; // without one the node does not answer, which is said already
  }
}

async function refresh() {
  clearTimeout(poll);
  const mine = (round += 1);
  try {
    const { node, realtime } = await readStatus();
    if (mine !== round) return;
    drawNode(node);
    followChanges(realtime);
    byId("offline").hidden = true;
    if (LOOKS[view]) await refreshView(mine);
  } catch (problem) {
    if (mine !== round) return;
    if (problem.status === 401) return showLogin("Your session has ended.");
    byId("offline").hidden = false;
  }
  if (mine === round) poll = setTimeout(refresh, STATUS_EVERY_MS);
}

// Other places in the page, as that of the skip link, leave the view as it is.
function chooseView() {
  const wanted = location.hash.slice(1);
  if (VIEWS.includes(wanted)) view = wanted;
  for (const name of VIEWS) {
    byId(`view-${name}`).hidden = name !== view;
    if (name === view) byId(`to-${name}`).setAttribute("aria-current", "page");
    else byId(`to-${name}`).removeAttribute("aria-current");
  }
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
addEventListener("hashchange", () => {
  chooseView();
  if (!byId("dashboard").hidden) refresh();
});

chooseView();

resumeSession().then(showDashboard, (problem) => showLogin(problem.status === 401 ? "" : problem.message));
