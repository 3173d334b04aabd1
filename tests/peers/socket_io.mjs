// A Socket.IO server that gives every reading from a broker to every client, with connection state recovery; for
// `python -m benchmarks.lines`. Its session at the broker is kept while it is restarted.
//
//   node socket_io.mjs PORT BROKER_PORT
import { connect } from "mqtt";
import { Server } from "socket.io";

const [port, brokerPort] = process.argv.slice(2).map(Number);
const server = new Server(port, { connectionStateRecovery: {} });
const broker = connect(`mqtt://127.0.0.1:${brokerPort}`, { clientId: "socket.io", clean: false });
broker.on("connect", () => broker.subscribe("sensors/#", { qos: 1 }));
broker.on("message", (topic, payload) => server.emit("reading", topic, JSON.parse(payload)));
// clients are told, as at the end of a deployment
process.on("SIGTERM", () => {
  broker.end();
  server.close(() => process.exit(0));
});
