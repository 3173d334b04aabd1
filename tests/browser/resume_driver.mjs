// The client library on a WebSocket that the test holds in its hand: one request a line, one answer a line.
//
//   node resume_driver.mjs file:///…/client.js
import readline from "node:readline";

let happened = [];
let socket;
globalThis.WebSocket = class {
  constructor() {
    socket = this;
  }
  send(data) {
    happened.push({ type: "command", ...JSON.parse(data) });
  }
  close() {}
};
const { connect } = await import(process.argv[2]);
let live;
let subscriptions = {};

const does = {
  connect() {
    live?.close();
    subscriptions = {};
    live = connect("ws://gateway/ws", { maxDelay: 0.001 });
    live.on("message", ({ seq }) => happened.push({ type: "message", seq }));
    for (const type of ["gap", "error"]) live.on(type, (event) => happened.push({ ...event, type, code: event.code }));
  },
  open: () => socket.onopen(),
  subscribe({ name, topics, since }) {
    const onMessage = ({ seq }) => happened.push({ type: "handled", name, seq });
    live.subscribe(topics, { since, onMessage }).then(
      (subscription) => {
        subscriptions[name] = subscription;
      },
      (error) => happened.push({ type: "error", code: error.code }),
    );
  },
  unsubscribe({ name }) {
    if (subscriptions[name]) subscriptions[name].unsubscribe().catch((error) => happened.push({ type: "error", code: error.code }));
    else happened.push({ type: "unanswered" });
  },
  frames({ frames }) {
    for (const data of frames) socket.onmessage?.({ data });
  },
  async cut() {
    const before = socket;
    socket.onclose({ code: 1006, reason: "" });
    while (socket === before) await new Promise((resolve) => setTimeout(resolve, 1));
  },
};

for await (const line of readline.createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  await does[request.do](request);
  for (let turn = 0; turn < 4; turn++) await new Promise(setImmediate);
  process.stdout.write(`${JSON.stringify(happened)}\n`);
  happened = [];
}
process.exit(0);
