// Follows the channels of all published tables with the stock client, as any application would.

import { authoriseChannel } from "./api.js";

const CHANGES = ["insert", "update", "delete", "truncate"];

const unescaped = (part) => {
  const bytes = part.replace(/%/g, "%25").replace(/@([0-9A-Fa-f]{2})/g, "%$1");
  try {
    return decodeURIComponent(bytes);
  } catch {
    return part;
  }
};

// [private-]db.<schema>.<table>; a byte that a channel name may not hold is written @hh.
export function tableOf(channel) {
  const [, schema = "", table = channel] = channel.replace(/^private-/, "").split(".");
  return schema === "public" ? unescaped(table) : `${unescaped(schema)}.${unescaped(table)}`;
}

function connect(appKey) {
  const secure = location.protocol === "https:";
  const port = Number(location.port) || (secure ? 443 : 80);
  return new Pusher(appKey, {
    cluster: "", // the client insists on one; wsHost wins over it
    wsHost: location.hostname, wsPort: port, wssPort: port, forceTLS: secure,
    enabledTransports: secure ? ["ws", "wss"] : ["ws"], // no fallback: it would go to another port or host
    disableStats: true,
    channelAuthorization: {
      customHandler: ({ socketId, channelName }, done) =>
        authoriseChannel(socketId, channelName).then((answer) => done(null, answer), (problem) => done(problem, null)),
    },
  });
}

export class Feed {
  #ticker;
  #onState;
  #pusher = null;
  #resume = null;
  #appKey = "";

  constructor(ticker, onState) {
    this.#ticker = ticker;
    this.#onState = onState;
  }

  // Connect if need be, and follow exactly these channels.
  follow(appKey, channels) {
    if (appKey !== this.#appKey) this.stop();
    if (!this.#pusher) this.#open(appKey);
    const wanted = new Set(channels);
    for (const { name } of this.#pusher.allChannels()) if (!wanted.has(name)) this.#leave(name);
    for (const name of wanted) if (!this.#pusher.channel(name)) this.#subscribe(name);
  }

  stop() {
    this.#resume?.stop();
    this.#pusher?.disconnect();
    this.#pusher = this.#resume = null;
    this.#appKey = "";
  }

  #open(appKey) {
    this.#appKey = appKey;
    this.#pusher = connect(appKey);
    this.#pusher.connection.bind("state_change", ({ current }) => this.#onState(current));
    this.#resume = new MagResume(this.#pusher);
    this.#resume.on("gap", ({ channel, reason }) => this.#ticker.gap(tableOf(channel), reason));
    this.#resume.on("resumed", ({ channel }) => this.#ticker.note(tableOf(channel), "Connection resumed, nothing missed."));
  }

  #leave(name) {
    this.#pusher.unsubscribe(name);
    this.#resume.forget(name);
  }

  #subscribe(name) {
    const channel = this.#pusher.subscribe(name);
    for (const op of CHANGES) channel.bind(op, (change) => this.#ticker.add({ op, ...change }));
    channel.bind("pusher:subscription_error", () => this.#ticker.note(tableOf(name), "May not be followed now."));
  }
}
