// The demo: compresses the story model in models/, prints what it costs, and lets both tell a story.

import { spawnSync } from "node:child_process";
import { existsSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const model = join(root, "models/pocket-stories");
const out = join(root, "demo-out/pocket-stories-6x");
const cli = join(root, "dist/cli/main.js");
if (!existsSync(cli)) {
  console.error("run `npm ci` first: it builds the command");
  process.exit(1);
}

/** Runs the command and returns the object that it prints with --json. */
function pocketllm(...args) {
  const { status, stdout } = spawnSync(process.execPath, [cli, ...args, "--json"], {
    stdio: ["ignore", "pipe", "inherit"],
    encoding: "utf8",
  });
  if (status !== 0) process.exit(status ?? 1);
  return JSON.parse(stdout);
}

rmSync(join(root, "demo-out"), { recursive: true, force: true });
console.log("Compressing models/pocket-stories to a sixth of its 16-bit size\n");
const calibration = join(root, "examples/calibration-stories.txt");
const compressed = pocketllm("compress", model, "--out", out, "--target", "6x", "--calibration", calibration);

const text = join(root, "examples/held-out-stories.txt");
const quality = pocketllm("eval", out, "--reference", model, "--text", text, "--context", "256");
const mb = (bytes) => `${(bytes / 1e6).toFixed(2)} MB`;
const rows = [
  ["", "original", "compressed"],
  [
    "weights on disk",
    mb(compressed.bytes16),
    `${mb(compressed.weightBytes)} (${compressed.ratio.toFixed(2)}x smaller)`,
  ],
  ["bits a weight", "16", compressed.bitsPerWeight.toFixed(2)],
  ["perplexity, held-out stories", quality.referencePerplexity.toFixed(2), quality.perplexity.toFixed(2)],
  ["same next token as the original", "", `${(100 * quality.sameTop).toFixed(1)} %`],
  ["mean KL divergence", "", `${quality.divergence.mean.toFixed(3)} nats`],
];
const widths = [0, 1, 2].map((i) => Math.max(...rows.map((row) => row[i].length)));
console.log(`\n${rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i])).join("  ")).join("\n")}`);

const prompt = "Once upon a time, there was a little girl named";
for (const [name, path] of [
  ["original", model],
  ["compressed", out],
]) {
  const { text: story } = pocketllm("generate", path, "--prompt", prompt, "--max-tokens", "120");
  console.log(`\n--- ${name} ---\n${prompt}${story}`);
}
console.log(
  `\nThe folder is demo-out/pocket-stories-6x. Try: npx pocketllm generate demo-out/pocket-stories-6x --prompt "One day"`,
);
