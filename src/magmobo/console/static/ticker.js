// The table of latest changes. Rows arrive in any number and are drawn a few times a second; at most ROWS are kept.

import { element } from "./node.js";

const ROWS = 200;
const DRAW_EVERY_MS = 120;
const SHORT_KEYS = 12;
const SHORT_TEXT = 40;
const SPARK_SECONDS = 60;

const byId = (id) => document.getElementById(id);

const short = (value) => {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  return text.length > SHORT_TEXT ? `${text.slice(0, SHORT_TEXT - 1)}…` : text;
};

function clockText(commitTime) {
  const at = new Date(commitTime ?? Date.now());
  if (Number.isNaN(at.getTime())) return "";
  const part = (number, width = 2) => String(number).padStart(width, "0");
  return `${part(at.getHours())}:${part(at.getMinutes())}:${part(at.getSeconds())}.${part(at.getMilliseconds(), 3)}`;
}

function rowDetails(change) {
  const record = change.record ?? change.old_record;
  if (!record || typeof record !== "object") return element("span", "faint", change.note ?? "");
  const details = element("details", "row");
  const summary = element("summary", "mono");
  for (const [key, value] of Object.entries(record).slice(0, SHORT_KEYS)) {
    summary.append(element("span", "key", `${key} `), document.createTextNode(`${short(value)}   `));
  }
  details.append(summary);
  details.addEventListener("toggle", () => {
    if (details.open && details.childElementCount === 1) {
      details.append(element("pre", "", JSON.stringify(record, null, 2)));
    }
  });
  return details;
}

function changeRow(change) {
  const row = element("tr", "fresh");
  const cell = (className, text) => element("td", className, text);
  const last = element("td");
  last.append(rowDetails(change));
  const table = change.schema === "public" || !change.schema ? change.table : `${change.schema}.${change.table}`;
  const op = String(change.op);
  row.append(cell("time mono", clockText(change.commit_time)), cell("", table), cell(`op op-${op}`, op), last);
  return row;
}

export class Ticker {
  #body = byId("ticker");
  #waiting = [];
  #paused = false;
  #held = 0;
  #received = 0;
  #gaps = 0;
  #perSecond = new Array(SPARK_SECONDS).fill(0);
  #timers = [];

  start() {
    this.#timers = [setInterval(() => this.#draw(), DRAW_EVERY_MS), setInterval(() => this.#second(), 1000)];
  }

  stop() {
    this.#timers.forEach(clearInterval);
    this.clear();
    this.#received = this.#gaps = 0;
    this.#perSecond.fill(0);
    this.pause(false);
    this.#counters();
  }

  add(change) {
    this.#received += 1;
    this.#perSecond[SPARK_SECONDS - 1] += 1;
    this.#enqueue(change);
  }

  gap(table, reason) {
    this.#gaps += 1;
    this.#enqueue({ op: "gap", table, note: `Changes were missed here (${reason}): read the table again.` });
  }

  note(table, text) {
    this.#enqueue({ op: "note", table, note: text });
  }

  pause(on) {
    this.#paused = on;
    this.#held = 0;
    byId("pause").textContent = on ? "Go on" : "Pause";
    byId("pause").setAttribute("aria-pressed", String(on));
    byId("held").hidden = true;
  }

  togglePause() {
    this.pause(!this.#paused);
  }

  clear() {
    this.#waiting = [];
    this.#body.replaceChildren();
    byId("ticker-empty").hidden = false;
  }

  #enqueue(change) {
    this.#waiting.push(change);
    if (this.#waiting.length > ROWS) this.#waiting.shift();
    if (this.#paused) this.#held += 1;
  }

  #draw() {
    this.#counters();
    if (this.#paused || this.#waiting.length === 0) return;
    const rows = this.#waiting.map(changeRow).reverse();
    this.#waiting = [];
    this.#body.prepend(...rows);
    while (this.#body.childElementCount > ROWS) this.#body.lastElementChild.remove();
    byId("ticker-empty").hidden = true;
  }

  #counters() {
    byId("received").textContent = this.#received.toLocaleString();
    byId("gaps").textContent = this.#gaps.toLocaleString();
    byId("gaps").classList.toggle("alarm", this.#gaps > 0);
    const held = byId("held");
    held.hidden = !this.#paused || this.#held === 0;
    held.textContent = `${this.#held.toLocaleString()} since the pause`;
  }

  #second() {
    byId("rate").textContent = this.#perSecond[SPARK_SECONDS - 1].toLocaleString();
    const highest = Math.max(...this.#perSecond, 1);
    const points = this.#perSecond.map(
      (count, second) => `${((second * 120) / (SPARK_SECONDS - 1)).toFixed(1)},${(30 - (28 * count) / highest).toFixed(1)}`,
    );
    byId("spark-line").setAttribute("points", points.join(" "));
    byId("spark-area").setAttribute("points", `0,32 ${points.join(" ")} 120,32`);
    this.#perSecond.shift();
    this.#perSecond.push(0);
  }
}
