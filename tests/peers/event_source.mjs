// A page's EventSource in Node.js, of the package eventsource: what it hears goes to standard output, a JSON list a line.
import { EventSource } from "eventsource";

const source = new EventSource(process.argv[2]);
const tell = ({ type, data }) => console.log(JSON.stringify([type, data]));
for (const type of ["message", "gap", "subscribed", "position"]) source.addEventListener(type, tell);
source.addEventListener("error", ({ code, message }) => console.error(code, message));
