// Going back to an older version: the node says what that would change, a person confirms, then it is done.

import { planRollback, rollBack } from "./api.js";
import { element } from "./node.js";
import { EFFECTS, valueText, visible } from "./words.js";

const byId = (id) => document.getElementById(id);
const NODE_ITSELF = "core";
const SIGNS_OUT = "admin.token_sha256";

let asked = 0; // a dialog that was closed has no use for its answer
let version = 0;
let shownPlan = "";
let isUnderWay = false;
let done = () => {};

function fromTo(change) {
  const [before, after] = [change.old, change.new].map((value) => valueText(value, change.is_secret));
  return change.is_secret && before === after ? "changed" : `${before} → ${after}`;
}

function changeItem(change) {
  const item = element("li");
  item.append(element("span", "mono", visible(change.key)), element("span", "mono from-to", fromTo(change)));
  item.append(element("span", "detail", `${EFFECTS[change.effect] ?? change.effect} · ${visible(change.origin)}`));
  return item;
}

function drawPlan(plan) {
  const list = element("ul", "changes");
  list.append(...plan.changes.map(changeItem));
  const names = (all) => all.map((name) => (name === NODE_ITSELF ? "the node itself" : visible(name))).join(", ");
  const lines = [
    ["Told while they serve: ", plan.live], ["Made anew, in this order: ", plan.restarts],
    ["Count after a restart of the node only: ", plan.waiting],
  ].filter(([, all]) => all.length > 0).map(([label, all]) => element("p", "", label + names(all)));
  if (plan.changes.some((change) => change.key === SIGNS_OUT)) {
    lines.push(element("p", "", "The admin token changes: everybody is signed out of the console, you too."));
  }
  byId("rollback-plan").replaceChildren(list, ...lines);
}

const isNothing = (plan) => plan.changes.length === 0 && plan.waiting.length === 0;

function say(state, problem) {
  byId("rollback-state").textContent = state;
  byId("rollback-problem").textContent = problem
    ? [visible(problem.message, "\n"), problem.remedy].filter(Boolean).join("\n") : "";
}

export async function openRollback(wanted, whenDone) {
  const mine = (asked += 1);
  [version, done, shownPlan, isUnderWay] = [wanted, whenDone, "", false];
  byId("rollback-title").textContent = `Go back to version ${wanted}`;
  byId("rollback-plan").replaceChildren();
  byId("rollback-do").hidden = false;
  byId("rollback-do").disabled = true;
  byId("rollback-close").textContent = "Cancel";
  say("Asking what would change…");
  byId("rollback").showModal();
  try {
    const { plan } = await planRollback(wanted);
    if (mine !== asked) return;
    shownPlan = JSON.stringify(plan);
    drawPlan(plan);
    say(isNothing(plan) ? "No setting differs." : "This would change. It counts until the files change.");
    byId("rollback-do").disabled = isNothing(plan);
  } catch (problem) {
    if (mine === asked) say("It cannot be gone back to now.", problem);
  }
}

async function goBack() {
  const mine = asked;
  isUnderWay = true;
  byId("rollback-do").disabled = byId("rollback-close").disabled = true;
  say("Going back…");
  try {
    const outcome = await rollBack(version);
    if (mine !== asked) return;
    const isAsShown = JSON.stringify(outcome.plan) === shownPlan;
    drawPlan(outcome.plan);
    say(`Version ${outcome.version} counts now.${isAsShown ? "" : " Something had changed since; this took effect:"}`);
  } catch (problem) {
    if (mine === asked) say("", problem);
  } finally {
    if (mine === asked) {
      isUnderWay = byId("rollback-close").disabled = false;
      byId("rollback-do").hidden = true;
      byId("rollback-close").textContent = "Close";
      byId("rollback-close").focus();
      done();
    }
  }
}

export function closeRollback() {
  asked += 1;
  isUnderWay = byId("rollback-close").disabled = false;
  byId("rollback").close();
  byId("rollback-plan").replaceChildren();
}

byId("rollback-do").addEventListener("click", goBack);
byId("rollback-close").addEventListener("click", closeRollback);
byId("rollback").addEventListener("cancel", (event) => {
  event.preventDefault();
  if (!isUnderWay) closeRollback();
});
