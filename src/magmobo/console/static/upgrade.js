// Draws what an upgrade that waits would change: what is more after a plus, what is less after a minus.

import { element } from "./node.js";
import { visible } from "./words.js";

const wideningText = ({ capability, kind, what }) =>
  `${visible(capability)}: ${kind === "rate_per_minute" ? `${visible(what)} a minute` : `${visible(kind)} ${visible(what)}`}`;
const bindingText = ({ kind, name, detail }) => `${visible(kind)} ${visible(name)}${detail ? ` (${visible(detail)})` : ""}`;
const line = (sign, tone, text) => {
  const item = element("li", tone);
  item.append(element("b", "mono", `${sign} `), text);
  return item;
};

export function upgradeChanges(upgrade) {
  const shown = element("div", "upgrade");
  const list = element("ul", "changes");
  list.setAttribute("aria-label", `What version ${visible(upgrade.version)} changes`);
  const more = [...upgrade.added.map(visible), ...upgrade.widened.map(wideningText), ...upgrade.bindings_added.map(bindingText)];
  const less = [...upgrade.removed.map(visible), ...upgrade.bindings_removed.map(bindingText)];
  list.append(...more.map((text) => line("+", "more", text)), ...less.map((text) => line("−", "less", text)));
  shown.append(element("p", "", `Version ${visible(upgrade.version)} changes:`), list);
  return shown;
}
