import "./language.ts";
import "./style.css";
import { render } from "preact";
import { watchAlerts } from "./alerts.ts";
import { App, loadCharts } from "./app.tsx";
import { watchIdentity } from "./identity.ts";
import { followLinks, route } from "./router.ts";

const root = document.getElementById("app");
if (!root) throw new Error("index.html has no #app");
followLinks(root);
watchIdentity();
if (!route.peek().params.has("embed")) watchAlerts();
render(<App />, root);
if ("requestIdleCallback" in window)
  requestIdleCallback(() => void loadCharts().catch(() => undefined), { timeout: 5000 });
