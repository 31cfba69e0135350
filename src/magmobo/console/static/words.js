// Words for settings. What a node's files hold is anybody's text: what nobody could see in it is spelled out.

export const EFFECTS = { live: "live", component: "component restart", node: "node restart" };

const UNSEEN = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Cs}]/gu; // control characters, marks that turn or hide text, line ends

export const visible = (text, allowed = "") =>
  String(text).replace(UNSEEN, (character) =>
    allowed.includes(character) ? character : `\\u{${character.codePointAt(0).toString(16)}}`,
  );

export function valueText(value, isSecret, indent = 0) {
  if (value === null) return "unset";
  return visible(isSecret && typeof value === "string" ? value : JSON.stringify(value, null, indent), indent ? "\n" : "");
}

export function timeText(at) {
  const time = new Date(at);
  if (Number.isNaN(time.getTime())) return visible(at);
  return time.toLocaleString([], { dateStyle: "short", timeStyle: "medium" });
}
