/** The page that flashes boards, by itself: a folder that any web server can show, with no gateway behind it. */
import "./language.ts";
import "./style.css";
import { render } from "preact";
import { Flash } from "./views/flash/flash.tsx";

const root = document.getElementById("app");
if (!root) throw new Error("flash.html has no #app");
render(
  <main class="alone">
    <Flash images={new URL("./", location.href)} />
  </main>,
  root,
);
