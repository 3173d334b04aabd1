import { rmSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { defineConfig } from "vitest/config";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Where `npm run dev` finds a running gateway. */
const target = process.env.GATEWAY_URL ?? "http://127.0.0.1:8000";
const proxied = ["/ws", "/topics", "/health", "/explain", "/whoami", "/metrics"];

const emptyAssets = {
  name: "empty-assets",
  apply: "build" as const,
  buildStart: () => rmSync(here("../../gateway/static/assets"), { recursive: true, force: true }),
};

export default defineConfig({
  plugins: [emptyAssets],
  root: here("."),
  // Relative addresses: the gateway serves the same files at any path prefix and below /topics/….
  base: "./",
  resolve: {
    alias: {
      "gateway-live/protocol": here("../client/src/protocol.ts"),
      "gateway-live": here("../client/src/index.ts"),
    },
  },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: here("../../gateway/static"),
    // client.js is built into the same directory: only our own files are emptied, below.
    emptyOutDir: false,
    target: "es2022",
    // Small files as data: addresses would need img-src data: in the content security policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    rollupOptions: { input: { index: here("index.html"), flash: here("flash.html") } },
  },
  server: {
    proxy: Object.fromEntries(proxied.map((path) => [path, { target, ws: path === "/ws" || path === "/topics" }])),
  },
  test: { include: ["test/**/*.test.ts"], environment: "node" },
});
