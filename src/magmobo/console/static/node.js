// Draws what the node says about itself: state, components, addresses, commands, notices.

const byId = (id) => document.getElementById(id);

const GOOD = new Set(["ready", "running", "healthy"]);
const BAD = new Set(["failed", "quarantined", "unhealthy"]);
const NEUTRAL = new Set(["", "disabled", "unchecked"]);
const tone = (word) => (GOOD.has(word) ? "good" : BAD.has(word) ? "bad" : NEUTRAL.has(word) ? "" : "warn");

export function element(tag, className = "", text = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text; // never innerHTML: names and rows are anybody's text
  return made;
}

const pill = (word) => element("span", `pill ${tone(word)}`, word || "–");

export function duration(seconds) {
  const days = Math.floor(seconds / 86400);
  const clock = [Math.floor(seconds / 3600) % 24, Math.floor(seconds / 60) % 60, Math.floor(seconds) % 60];
  const text = clock.map((part) => String(part).padStart(2, "0")).join(":");
  return days ? `${days} d ${text}` : text;
}

// Nobody asks a component that does not run, nor one that has only just come up.
const healthWord = ({ state, health }) => (health !== "unknown" ? health : state === "running" ? "unchecked" : "");

const componentRow = (component) => {
  const row = element("tr");
  const name = element("th", "", component.name);
  name.scope = "row";
  if (component.detail && component.detail !== component.state) name.append(element("span", "detail", component.detail));
  const cells = [pill(component.state), pill(healthWord(component))].map((content) => {
    const cell = element("td");
    cell.append(content);
    return cell;
  });
  const since = new Date(component.since);
  const sinceText = Number.isNaN(since.getTime()) ? "" : since.toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
  row.append(name, ...cells, element("td", "number", String(component.restarts)), element("td", "", sinceText));
  return row;
};

function address(url) {
  const cell = element("dd");
  if (/^https?:\/\//.test(url)) {
    const link = element("a", "mono", url);
    link.href = url;
    cell.append(link);
  } else cell.append(element("span", "mono", url));
  return cell;
}

let drawn = "";

export function drawNode(node) {
  byId("uptime").textContent = duration(node.uptime_s);
  const { uptime_s: _, ...lasting } = node;
  const wanted = JSON.stringify(lasting);
  if (wanted === drawn) return; // leave the page alone while somebody selects text in it
  drawn = wanted;
  const state = byId("node-state");
  state.hidden = false;
  state.className = `pill ${tone(node.state)}`;
  state.textContent = node.state;
  byId("node-facts").textContent = `${node.environment} · ${node.version} · ${node.instance_id}`;
  byId("components").replaceChildren(...node.components.map(componentRow));
  byId("urls").replaceChildren(
    ...Object.entries(node.urls).flatMap(([label, url]) => [element("dt", "", label), address(url)]),
  );
  byId("examples").replaceChildren(...node.examples.map((text) => element("pre", "example", text)));
  byId("examples-title").hidden = node.examples.length === 0;
  byId("notices").replaceChildren(...node.notices.map((text) => element("li", "", text)));
  byId("notices-title").hidden = node.notices.length === 0;
}

export function forgetNode() {
  drawn = "";
  byId("node-state").hidden = true;
  byId("node-facts").textContent = "";
  for (const id of ["components", "urls", "examples", "notices"]) byId(id).replaceChildren();
}
