// Bundles src/ into dist/: client.js, and client-shared.js with its worker, which import it. Also the copies that the gateway
// serves: node build.mjs --serve only makes those, after something else has emptied gateway/static/.
import { cp, mkdir, readdir, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const dist = here("dist/");
const served = here("../../gateway/static/");

if (!process.argv.includes("--serve")) {
  await rm(dist, { recursive: true, force: true });
  await build({
    root: here("."),
    configFile: false,
    logLevel: "warn",
    build: {
      outDir: dist,
      target: "es2022",
      sourcemap: true,
      lib: {
        entry: {
          client: here("src/index.ts"),
          "client-shared": here("src/shared.ts"),
          "client-worker": here("src/worker.ts"),
        },
        formats: ["es"],
      },
      // Vite keeps white space in libraries; a page gets this file as it is
      rolldownOptions: { output: { minify: true } },
    },
  });
}
await mkdir(served, { recursive: true });
for (const name of await readdir(dist)) {
  if (/^client.*\.js(\.map)?$/.test(name)) await cp(dist + name, served + name);
}
