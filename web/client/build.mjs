// Bundles src/ into dist/: modules that need nothing beside them, as a page gets them. And copies them to where the gateway
// serves them; `node build.mjs --serve` does only that, after something else has emptied gateway/static/.
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "vite";

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const dist = here("dist/");
const served = here("../../gateway/static/");

if (!process.argv.includes("--serve")) {
  await rm(dist, { recursive: true, force: true });
  for (const [name, source] of Object.entries({
    client: "index",
    "client-shared": "shared",
    "client-worker": "worker",
    "client-ask": "ask",
    protocol: "protocol",
  })) {
    await build({
      root: here("."),
      configFile: false,
      logLevel: "warn",
      build: {
        outDir: dist,
        emptyOutDir: false,
        target: "es2022",
        sourcemap: true,
        lib: { entry: { [name]: here(`src/${source}.ts`) }, formats: ["es"] },
        // Vite keeps white space in libraries; a page gets this file as it is
        rolldownOptions: { output: { minify: true } },
      },
    });
  }
}
await mkdir(served, { recursive: true });
for (const name of await readdir(dist)) {
  if (/^client.*\.js(\.map)?$/.test(name)) await cp(dist + name, served + name);
}
// The gateway has no time to compress: it sends what lies beside a file to whoever takes it.
for (const entry of await readdir(served, { recursive: true })) {
  if (/\.(js|css)$/.test(entry))
    await writeFile(`${served + entry}.gz`, gzipSync(await readFile(served + entry), { level: 9 }));
}
