// Bundles the library for browsers into dist/browser/: pocketllm.js, worker.js and grammar.js (minified, no imports
// left), the kernels and the library of grammars beside them, so that the folder works as it is on any static server.
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const dist = join(dirname(fileURLToPath(import.meta.url)), "../dist");
const out = join(dist, "browser");
rmSync(out, { recursive: true, force: true });
mkdirSync(out);
const { metafile } = await build({
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
  metafile: true,
  logLevel: "warning",
});
for (const name of ["kernels", "kernels.fused", "kernels.single", "kernels.single.fused"])
  copyFileSync(join(dist, "compute/wasm", `${name}.wasm`), join(out, `${name}.wasm`));
copyFileSync(fileURLToPath(import.meta.resolve("@mlc-ai/web-xgrammar")), join(out, "xgrammar.js"));

// The licences of what went in, since whoever serves the folder passes it on.
const inside = Object.keys(metafile.inputs).flatMap((path) => {
  const found = /node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(path);
  return found ? [found[1]] : [];
});
const notices = [...new Set([...inside, "@mlc-ai/web-xgrammar"])].sort().map((name) => {
  const folder = join(dist, "../node_modules", name);
  const { version, license, homepage = "" } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e(\.|$)/i.test(entry));
  const text = file ? readFileSync(join(folder, file), "utf8") : `Licence: ${license}\n`;
  return `${name} ${version} (${license}) ${homepage}\n\n${text}`;
});
const own = join(dist, "../LICENSE");
const all = [...(existsSync(own) ? [`PocketLLM\n\n${readFileSync(own, "utf8")}`] : []), ...notices];
writeFileSync(join(out, "LICENSES.txt"), all.join(`\n${"-".repeat(80)}\n\n`));
