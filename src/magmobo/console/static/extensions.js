// Draws the extensions: what each may do and why, what it reads and writes, how it is; orders go through a dialog.

import { element } from "./node.js";
import { openOrder } from "./order.js";
import { upgradeChanges } from "./upgrade.js";
import { timeText, visible } from "./words.js";

const STATES = { enabled: "good", healthy: "good", error: "bad", unhealthy: "bad", degraded: "warn", installed: "warn" };
const RISKS = { low: "", medium: "warn", high: "warn", critical: "bad" };
const GRANTS = { granted: "granted", pending: "waits for approval", revoked: "revoked", refused: "not had" };
const RUNS = ["enabled", "enabling", "upgrading"];

const byId = (id) => document.getElementById(id);

let mark = "";

export const extensionsMark = () => mark;

const pill = (word, tones = STATES) => element("span", `pill ${tones[word] ?? ""}`, visible(word || "–"));

function button(text, press) {
  const made = element("button", "quiet", text);
  made.type = "button";
  made.addEventListener("click", press);
  return made;
}

export function grantRow(grant, ...last) {
  const row = element("tr");
  const name = element("th", "mono", visible(grant.capability));
  name.scope = "row";
  const risk = element("td");
  risk.append(pill(grant.risk, RISKS));
  const scope = Object.values(grant.scope).flat().map(visible).join(", ");
  const about = element("td", "", scope || "–");
  const limits = [`${grant.rate_per_minute} a minute`, grant.budget_per_day && `${grant.budget_per_day} a day`,
    grant.hours && `at ${visible(grant.hours)} UTC`, grant.expires_at && `until ${timeText(grant.expires_at)}`,
    grant.optional && "it runs without"].filter(Boolean).join(" · ");
  about.append(element("span", "detail", `${visible(grant.reason)} (${limits})`));
  const state = element("td", "", (GRANTS[grant.state] ?? visible(grant.state)) + (grant.new ? ", new" : ""));
  const tail = element("td", "tail");
  tail.append(...last);
  row.append(name, risk, about, state, tail);
  return row;
}

export function grantTable(grants, tail = () => []) {
  const table = element("table", "grants");
  const body = element("tbody");
  const order = Object.keys(RISKS);
  const riskiest = [...grants].sort((one, other) => order.indexOf(other.risk) - order.indexOf(one.risk));
  body.append(...riskiest.map((grant) => grantRow(grant, ...tail(grant))));
  table.append(body);
  return table;
}

function orders(info, done) {
  const found = [];
  const order = (verb, title, words, grants = []) => () => openOrder({ verb, id: info.id }, title, words, done, grants);
  if (info.waiting.length || info.pending_version) found.push(button("Look and approve…", order("approve", `Approve ${visible(info.id)}`, "", info.waiting)));
  if (RUNS.includes(info.state)) {
    found.push(button("Disable…", order("disable", `Disable ${visible(info.id)}`, "It finishes what it does, then stops until it is enabled.")));
    found.push(button("Kill…", order("kill", `Kill ${visible(info.id)}`, "It ends at once, whatever it does, and stays stopped.")));
  } else found.push(button("Enable…", order("enable", `Enable ${visible(info.id)}`, "It starts with what it was granted.")));
  if (info.goesBack) found.push(button("Go back…", order("rollback", `Take ${visible(info.id)} back`, "To the version before; its migrations are undone.")));
  return found;
}

function pairs(entries) {
  const list = element("dl", "pairs");
  for (const [label, text] of entries) if (text) list.append(element("dt", "", label), element("dd", "", text));
  return list;
}

// What is used up of a capability; empty when nothing is to be said.
function limitText(limit) {
  const found = [
    limit.budget_per_day && `${limit.spent_today} of ${limit.budget_per_day} calls of today on all nodes, anew at ${timeText(limit.renews_at)}`,
    limit.refused && `${limit.rate_per_minute} a minute, ${limit.refused} refused here since the node started`,
    limit.limited && (limit.limited === "budget" ? "calls wait for the next day" : "calls wait for the rate"),
  ].filter(Boolean).join("; ");
  return found && `${visible(limit.capability)}: ${found}`;
}

function waitText(wait) {
  const of = wait.capabilities.length ? ` of ${wait.capabilities.map(visible).join(" or ")}` : "";
  return `${visible(wait.handler)} waits until ${timeText(wait.until)}: the ${visible(wait.kind)}${of} is used up. ${wait.behind} wait with it, none is lost. ` +
    "It goes on at once when the limit is raised or the capability is revoked.";
}

function card(detail, done) {
  const { info } = detail;
  const shown = element("section", "card live extension");
  shown.setAttribute("aria-label", visible(info.id));
  const head = element("div", "head");
  head.append(element("h2", "", `${visible(info.name)} `), element("span", "mono", `${visible(info.id)} ${visible(info.version)}`),
    pill(info.state), ...(info.health ? [pill(info.health)] : []));
  const tools = element("span", "tools");
  const waiting = detail.grants.filter((grant) => grant.state === "pending");
  tools.append(...orders({ ...info, waiting, goesBack: detail.versions.length > (info.pending_version ? 2 : 1) }, done));
  head.append(tools);
  const tail = (grant) => {
    const about = { id: info.id, wanted: grant.capability };
    if (grant.state === "granted") {
      return [button("Revoke…", () => openOrder({ ...about, verb: "revoke" }, `Revoke ${visible(grant.capability)}`, "It counts from the next call on.", done))];
    }
    return [button("Grant…", () => openOrder({ ...about, verb: "grant" }, `Grant ${visible(grant.capability)}`, "", done, [grant]))];
  };
  const bound = detail.bindings.map(({ kind, name, detail: more }) => `${kind} ${visible(name)}${more ? ` (${visible(more)})` : ""}`);
  shown.append(head);
  if (info.detail) shown.append(element("p", "banner warn words", visible(info.detail)));
  if (info.pending_version) shown.append(element("p", "banner warn", `Version ${visible(info.pending_version)} waits for approval; this one goes on.`));
  if (detail.upgrade) shown.append(upgradeChanges(detail.upgrade));
  for (const wait of detail.waits) shown.append(element("p", "banner warn words", waitText(wait)));
  shown.append(element("p", "", visible(detail.description)), grantTable(detail.grants, tail), pairs([
    ["Reads", detail.reads.map(visible).join(", ")], ["Writes", detail.writes.map(visible).join(", ")],
    ["Takes part in", bound.join(", ")], ["Signed by", visible(info.signer_name ? `${info.signer_name} (${info.signer})` : info.signer)], ["Sandbox", visible(info.tier)],
    ["Used up", detail.limits.map(limitText).filter(Boolean).join(" · ")], ["Restarts", info.restarts ? String(info.restarts) : ""],
    ["Events", detail.backlog || detail.dead ? `${detail.backlog} wait, ${detail.dead} could not be taken` : ""],
    ["Figures", Object.entries(detail.figures).map(([name, value]) => `${visible(name)} ${value}`).join(", ")],
  ]));
  return shown;
}

// `done` is called when something was ordered from here.
export function drawExtensions(found, done) {
  mark = found.mark;
  byId("extensions-tier").textContent = `sandbox ${visible(found.page.tier)}`;
  byId("extensions-stopped").hidden = !found.page.stopped;
  byId("extensions-stop").hidden = found.page.stopped || found.details.length === 0;
  byId("extensions-empty").hidden = found.details.length > 0;
  byId("extensions").replaceChildren(...found.details.map((detail) => card(detail, done)));
  byId("extensions-stop").onclick = () =>
    openOrder({ verb: "kill-all" }, "Stop every extension", "They end at once, and none starts before you let them.", done);
  byId("extensions-release").onclick = () =>
    openOrder({ verb: "release" }, "Let extensions run again", "What had been enabled starts again.", done);
}

export function forgetExtensions() {
  mark = "";
  byId("extensions").replaceChildren();
  for (const id of ["extensions-stopped", "extensions-problem", "extensions-empty"]) byId(id).hidden = true;
  byId("extensions-tier").textContent = "";
}
