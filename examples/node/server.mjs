// A site with live temperatures in Node.js, without a package: the gateway has its sockets, the site says who may open
// them. GATEWAY_URL is where the gateway is, GATEWAY_ACCESS_SECRET signs its tokens; SITE_USER may log in with
// SITE_PASSWORD.
import { createHmac, timingSafeEqual } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { json } from "node:stream/consumers";

const {
  GATEWAY_URL: gateway = "http://127.0.0.1:8000",
  GATEWAY_ACCESS_SECRET: secret,
  SITE_TOKEN_SECONDS: seconds = "600",
  SITE_USER: name,
  SITE_PASSWORD: password,
  PORT: port = "8080",
} = process.env;
if (!secret || !name || !password) throw new Error("GATEWAY_ACCESS_SECRET, SITE_USER and SITE_PASSWORD are needed");

const topic = "sensors/living-climate/state";
const page = readFileSync(new URL("page.html", import.meta.url), "utf-8").replaceAll("GATEWAY", gateway);

// A token for the gateway (RFC 7519), by which somebody may subscribe and publish to topics.
function token(sub, topics) {
  const now = Math.floor(Date.now() / 1000);
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  const text = `${part({ alg: "HS256", typ: "JWT" })}.${part({ sub, topics, iat: now, exp: now + Number(seconds) })}`;
  return `${text}.${createHmac("sha256", secret).update(text).digest("base64url")}`;
}

// Who is logged in; your own site has its own way to know.
function isUser(request) {
  const digest = (text) => createHmac("sha256", secret).update(text).digest();
  const given = (request.headers.authorization ?? "").replace(/^Basic /, "");
  return timingSafeEqual(digest(Buffer.from(given, "base64")), digest(`${name}:${password}`));
}

// Gives a temperature to everybody who looks at it.
async function sendTemperatureUpdate(temperature) {
  const answer = await fetch(`${gateway}/topics/${topic}`, {
    method: "POST",
    headers: {
      "Authorization": `Bearer ${token("site", { publish: [topic] })}`,
      "Content-Type": "application/json",
    },
    body: JSON.stringify({ temperature }),
  });
  if (!answer.ok) throw new Error(`the gateway answers ${answer.status}: ${await answer.text()}`);
}

async function answer(request) {
  if (!isUser(request)) return [401, { "WWW-Authenticate": 'Basic realm="temperatures"' }, ""];
  switch (`${request.method} ${request.url}`) {
    case "GET /":
      return [200, { "Content-Type": "text/html; charset=utf-8" }, page];
    case "GET /gateway-token": {
      const body = JSON.stringify({ token: token(name, { subscribe: [topic] }) });
      return [200, { "Content-Type": "application/json", "Cache-Control": "no-store" }, body];
    }
    case "POST /temperatures":
      await sendTemperatureUpdate((await json(request)).temperature);
      return [202, {}, ""];
    default:
      return [404, {}, ""];
  }
}

createServer(async (request, response) => {
  try {
    const [status, headers, body] = await answer(request);
    response.writeHead(status, headers).end(body);
  } catch (error) {
    console.error(error);
    response.writeHead(500).end();
  }
}).listen(Number(port), "127.0.0.1", () => console.log(`http://127.0.0.1:${port}/`));
