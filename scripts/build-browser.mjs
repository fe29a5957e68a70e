// Bundles the library for browsers into dist/browser/: pocketllm.js, worker.js and grammar.js (minified, no imports
// left), the kernels and the library of grammars beside them, so that the folder works as it is on any static server.
import { copyFileSync, mkdirSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const dist = join(dirname(fileURLToPath(import.meta.url)), "../dist");
const out = join(dist, "browser");
rmSync(out, { recursive: true, force: true });
mkdirSync(out);
await build({
  entryPoints: {
    pocketllm: join(dist, "browser.js"),
    worker: join(dist, "compute/wasm/worker.js"),
    grammar: join(dist, "grammar/worker.js"),
  },
  outdir: out,
  bundle: true,
  format: "esm",
  platform: "browser",
  target: "es2022",
  minify: true,
  legalComments: "none",
  logLevel: "warning",
});
for (const name of ["kernels", "kernels.fused", "kernels.single", "kernels.single.fused"])
  copyFileSync(join(dist, "compute/wasm", `${name}.wasm`), join(out, `${name}.wasm`));
copyFileSync(fileURLToPath(import.meta.resolve("@mlc-ai/web-xgrammar")), join(out, "xgrammar.js"));
