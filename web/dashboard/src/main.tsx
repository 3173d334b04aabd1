import "./style.css";
import { render } from "preact";
import { App, loadCharts } from "./app.tsx";
import { watchIdentity } from "./identity.ts";
import { followLinks } from "./router.ts";

const root = document.getElementById("app");
if (!root) throw new Error("index.html has no #app");
followLinks(root);
watchIdentity();
render(<App />, root);
if ("requestIdleCallback" in window)
  requestIdleCallback(() => void loadCharts().catch(() => undefined), { timeout: 5000 });
