// One order about extensions: it is said what it comes to, a person confirms, a critical one by typing, then it is done.

import { orderExtension } from "./api.js";
import { grantTable } from "./extensions.js";
import { upgradeChanges } from "./upgrade.js";
import { visible } from "./words.js";

const byId = (id) => document.getElementById(id);

let asked = 0; // a dialog that was closed has no use for its answer
let order = {};
let isUnderWay = false;
let done = () => {};

function say(words, problem) {
  byId("order-words").textContent = words;
  byId("order-problem").textContent = problem
    ? [visible(problem.message, "\n"), problem.remedy].filter(Boolean).join("\n") : "";
}

function drawGrants(grants, upgrade) {
  const drawn = [...(grants.length ? [grantTable(grants)] : []), ...(upgrade ? [upgradeChanges(upgrade)] : [])];
  byId("order-grants").replaceChildren(...drawn);
  const isCritical = grants.some((grant) => grant.risk === "critical");
  byId("order-typing").hidden = !isCritical;
  return isCritical;
}

const canDo = () => byId("order-typing").hidden || byId("order-confirm").value === order.id;

// `grants` are those that it is about. An approval asks the node first what it comes to: an upgrade that waits asks for
// other things than the version shown; and it names the package that was looked at, so that no other is approved.
export async function openOrder(wanted, title, words, whenDone, grants = []) {
  const mine = (asked += 1);
  [order, done, isUnderWay] = [wanted, whenDone, false];
  byId("order-title").textContent = title;
  byId("order-confirm").value = "";
  byId("order-close").textContent = "Cancel";
  byId("order-do").hidden = false;
  say(words);
  drawGrants(grants);
  byId("order-do").disabled = !canDo();
  byId("order").showModal();
  if (wanted.verb !== "approve") return;
  byId("order-do").disabled = true;
  say("Asking what it comes to…");
  try {
    const detail = await orderExtension({ ...wanted, dry_run: true, confirm: wanted.id });
    if (mine !== asked) return;
    order = { ...order, sha256: detail.pending_sha256 || detail.sha256 };
    const waits = grants.map((one) => one.capability);
    const waiting = detail.grants.filter((one) => one.new || waits.includes(one.capability));
    const rows = waiting.map((one) => ({ ...one, state: "pending" })); // the answer has them granted already
    drawGrants(rows, waiting.length ? detail.upgrade : null);
    const then = detail.upgrade ?? detail;
    const [reads, writes] = [then.reads, then.writes].map((names) => names.map(visible).join(", ") || "nothing");
    say(waiting.length ? `It would read ${reads} and write ${writes}.` : "Nothing waits for approval.");
    byId("order-do").disabled = waiting.length === 0 || !canDo();
  } catch (problem) {
    if (mine === asked) say("It cannot be approved now.", problem);
  }
}

async function carryOut() {
  const mine = asked;
  isUnderWay = true;
  byId("order-do").disabled = byId("order-close").disabled = true;
  try {
    await orderExtension({ ...order, confirm: byId("order-confirm").value });
    if (mine === asked) isUnderWay = false, closeOrder();
  } catch (problem) {
    if (mine === asked) say("", problem);
  } finally {
    if (mine === asked) {
      isUnderWay = byId("order-close").disabled = false;
      byId("order-do").hidden = true;
      byId("order-close").textContent = "Close";
    }
    done();
  }
}

export function closeOrder() {
  asked += 1;
  isUnderWay = byId("order-close").disabled = false;
  byId("order").close();
  byId("order-grants").replaceChildren();
}

byId("order-do").addEventListener("click", carryOut);
byId("order-close").addEventListener("click", closeOrder);
byId("order-confirm").addEventListener("input", () => {
  byId("order-do").disabled = !canDo();
});
byId("order").addEventListener("cancel", (event) => {
  event.preventDefault();
  if (!isUnderWay) closeOrder();
});
