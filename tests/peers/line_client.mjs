// A client on a line that loses packets, for `python -m benchmarks.lines`: it tells what it heard on standard output, a
// JSON list a line: [ms since 1970, "message", number], [ms, "gap", lost or null, why], [ms, "state", text].
//
//   node line_client.mjs KIND HOST PORTS NAME [CLIENT_LIBRARY]
import { connect as connectMqtt } from "mqtt";
import { EventSource } from "eventsource";
import { io } from "socket.io-client";
import { WebSocket } from "ws";

const [kind, host, ports, name, library] = process.argv.slice(2);
const { gateway, mqtt, socketIo } = JSON.parse(ports);
const FILTER = "sensors/#";
const COUNT_BASE = 1_000_000_000;

const tell = (...what) => console.log(JSON.stringify([Date.now(), ...what]));
const state = (text) => tell("state", text);
const message = ({ n }) => tell("message", n - COUNT_BASE);

// told of a loss without its number: that a connection is not the continuation of the one before
const unlessFirst = (why) => {
  let isFirst = true;
  return (continues) => {
    if (!isFirst && !continues) tell("gap", null, why);
    if (isFirst) state("subscribed");
    isFirst = false;
  };
};

const mqttClient = (options, qos) => {
  const client = connectMqtt(`ws://${host}:${mqtt}`, options);
  const begun = unlessFirst("no session");
  let isSubscribed = false;
  client.on("connect", ({ sessionPresent }) => {
    state("open");
    // the library subscribes again by itself
    if (isSubscribed) return begun(sessionPresent);
    isSubscribed = true;
    client.subscribe(FILTER, qos, (error) => (error ? state(String(error)) : begun(true)));
  });
  client.on("message", (_topic, payload) => message(JSON.parse(payload)));
  client.on("close", () => state("closed"));
  client.on("error", (error) => state(String(error)));
};

const kinds = {
  async "gateway-live"() {
    const { connect } = await import(library);
    const live = connect(`ws://${host}:${gateway}/ws`, { topics: FILTER, since: "now", WebSocket });
    live.on("message", ({ payload }) => message(payload));
    live.on("gap", ({ lost, reason }) => tell("gap", lost, reason));
    live.on("subscribed", () => state("subscribed"));
    live.on("state", ({ state: now, code }) => state(code ? `${now} ${code}` : now));
    live.on("error", (error) => state(String(error)));
  },
  EventSource() {
    const source = new EventSource(`http://${host}:${gateway}/topics/${encodeURIComponent(FILTER)}?since=now`);
    source.addEventListener("message", ({ data }) => message(JSON.parse(data).payload));
    source.addEventListener("gap", ({ data }) => {
      const { lost, reason } = JSON.parse(data);
      tell("gap", lost, reason);
    });
    source.addEventListener("subscribed", () => state("subscribed"));
    source.addEventListener("error", ({ code, message: text }) => state(`error ${code ?? ""} ${text ?? ""}`));
  },
  "MQTT.js"() {
    mqttClient({ clean: false, clientId: name }, { qos: 1 });
  },
  "MQTT.js defaults"() {
    mqttClient();
  },
  "Socket.IO"() {
    const socket = io(`http://${host}:${socketIo}`);
    const begun = unlessFirst("not recovered");
    socket.on("connect", () => {
      state("open");
      begun(socket.recovered);
    });
    socket.on("reading", (_topic, payload) => message(payload));
    socket.on("disconnect", state);
  },
};
await kinds[kind]();
