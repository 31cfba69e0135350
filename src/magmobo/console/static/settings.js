// Draws the settings: each with who set it and what a change takes, what the last reload refused, and the versions.

import { element } from "./node.js";
import { openRollback } from "./rollback.js";
import { EFFECTS, timeText, valueText, visible } from "./words.js";

const KEYS_SHOWN = 6;
const LONG_TEXT = 60;

const byId = (id) => document.getElementById(id);

let mark = "";
let rows = []; // [row, what can be searched for, whether somebody set it]

export const settingsMark = () => mark;

function valueCell(entry) {
  const cell = element("td", "value");
  const text = valueText(entry.value, entry.is_secret);
  if (text.length > LONG_TEXT) {
    const details = element("details", "row");
    details.append(element("summary", "mono", text), element("pre", "", valueText(entry.value, entry.is_secret, 2)));
    cell.append(details);
  } else cell.append(element("span", entry.value === null ? "faint" : "mono", text));
  cell.append(...marks(entry).map(([tone, words]) => element("span", `mark ${tone}`, words)));
  return cell;
}

function marks(entry) {
  const found = [];
  if (entry.is_secret) found.push(["", "secret"]);
  if (entry.reference) found.push(["", `from ${visible(entry.reference)}`]);
  if (entry.waiting) found.push(["warn", "another value waits for a restart of the node"]);
  if (entry.expires_at) found.push(["warn", `until ${timeText(entry.expires_at)}`]);
  return found;
}

// A long name goes on in the next line behind one of its words.
const breakable = (name) => name.split(/(?<=[_.])/).flatMap((word) => [document.createTextNode(word), element("wbr")]);

function settingRow(entry) {
  const row = element("tr");
  const [section, ...inner] = visible(entry.key).split(".");
  const key = element("th", "mono");
  key.scope = "row";
  key.append(element("span", "key", `${section}.`), ...breakable(inner.join(".")));
  const isDefault = entry.layer === "default";
  row.append(
    key, valueCell(entry), element("td", isDefault ? "faint" : "", visible(entry.origin)),
    element("td", entry.effect === "live" ? "faint" : "", EFFECTS[entry.effect] ?? entry.effect),
  );
  row.classList.toggle("set", !isDefault);
  const text = `${row.textContent} ${visible(entry.key)} ${entry.layer} ${entry.waiting ? "waiting" : ""}`.toLowerCase();
  return [row, text, !isDefault];
}

function changedCell(version) {
  const cell = element("td", "changed");
  const keys = version.changed_keys.map(visible);
  if (keys.length > KEYS_SHOWN) {
    const details = element("details");
    const more = `${keys.slice(0, KEYS_SHOWN).join(", ")} and ${keys.length - KEYS_SHOWN} more`;
    details.append(element("summary", "mono", more), element("p", "mono", keys.slice(KEYS_SHOWN).join(", ")));
    cell.append(details);
  } else cell.append(element("span", "mono", keys.join(", ")));
  if (version.note) cell.append(element("span", "detail", visible(version.note)));
  return cell;
}

function versionRow(version, done) {
  const row = element("tr");
  const number = element("th", "number", String(version.version));
  number.scope = "row";
  const by = element("td", "", visible(version.actor));
  by.append(element("span", "detail", visible(version.trigger)));
  const last = element("td", "tail");
  if (version.running) last.append(element("span", "pill good", "counts now"));
  else if (version.restorable) {
    const button = element("button", "quiet", "Go back…");
    button.type = "button";
    button.setAttribute("aria-label", `Go back to version ${version.version}`);
    button.addEventListener("click", () => openRollback(version.version, done));
    last.append(button);
  } else last.append(element("span", "faint", "no longer kept"));
  row.append(number, element("td", "", timeText(version.at)), by, changedCell(version), last);
  return row;
}

function drawBanners(tree) {
  byId("refused").hidden = !tree.refused;
  byId("refused").textContent = `The last reload did not take effect: ${visible(tree.refused, "\n")}`;
  byId("taken-back").hidden = !tree.held;
  const waiting = tree.entries.filter((entry) => entry.waiting).map((entry) => visible(entry.key));
  byId("waiting").hidden = waiting.length === 0;
  byId("waiting").textContent = `Changed, and waiting for a restart of the node: ${waiting.join(", ")}`;
}

function search() {
  const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const onlySet = byId("only-set").checked;
  let found = 0;
  for (const [row, text, isSet] of rows) {
    row.hidden = !(words.every((word) => text.includes(word)) && (isSet || !onlySet));
    found += row.hidden ? 0 : 1;
  }
  byId("found").textContent = found === rows.length ? `${rows.length}` : `${found} of ${rows.length}`;
  byId("settings-empty").hidden = found > 0;
}

// `done` is called when the settings were changed from here.
export function drawSettings(settings, done) {
  mark = settings.mark;
  const { tree, history } = settings;
  drawBanners(tree);
  byId("settings-version").textContent = `version ${tree.version} · ${visible(tree.environment)}`;
  rows = tree.entries.map(settingRow);
  byId("settings").replaceChildren(...rows.map(([row]) => row));
  byId("versions").replaceChildren(...history.versions.map((version) => versionRow(version, done)));
  search();
}

export function forgetSettings() {
  mark = "";
  rows = [];
  for (const id of ["settings", "versions"]) byId(id).replaceChildren();
  for (const id of ["refused", "taken-back", "waiting", "settings-problem"]) byId(id).hidden = true;
  for (const id of ["settings-version", "found", "refused", "waiting"]) byId(id).textContent = "";
  byId("search").value = "";
  byId("only-set").checked = false;
}

byId("search").addEventListener("input", search);
byId("only-set").addEventListener("change", search);
