// Peak memory of `compress` against depth: checkpoints of Llama-2-7B's shapes with random weights, coded
// without data. usage: node bench/memory-depth.mjs [--layers 2,16] [--bits 2] [--dir DIR]
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { makeTinyLlama } from "../test/hostile/tiny-llama.mjs";

const { values } = parseArgs({
  options: {
    layers: { type: "string", default: "2,16" },
    bits: { type: "string", default: "2" },
    dir: { type: "string", default: tmpdir() },
  },
});
const cli = fileURLToPath(new URL("../dist/cli/main.js", import.meta.url));
const work = mkdtempSync(join(values.dir, "pocketllm-depth-"));
try {
  console.log("| layers | weights, millions | peak memory, MB | seconds |\n| --- | --- | --- | --- |");
  for (const layers of values.layers.split(",").map(Number)) {
    const model = join(work, `model-${layers}`);
    await makeTinyLlama(model, {
      layers,
      hidden: 4096,
      intermediate: 11008,
      heads: 32,
      kvHeads: 32,
      vocab: 32000,
      context: 4096,
      dtype: "F16",
    });
    const args = [
      cli,
      "compress",
      model,
      "--out",
      join(work, `out-${layers}`),
      "--bits",
      values.bits,
      "--data-free",
    ];
    const { status, stdout } = spawnSync(process.execPath, [...args, "--json"], {
      stdio: ["ignore", "pipe", "inherit"],
      encoding: "utf8",
    });
    if (status !== 0) process.exit(status ?? 1);
    const { bytes16, peakBytes, seconds } = JSON.parse(stdout);
    console.log(
      `| ${layers} | ${(bytes16 / 2e6).toFixed(0)} | ${(peakBytes / 1e6).toFixed(0)} | ${seconds.toFixed(0)} |`,
    );
    rmSync(model, { recursive: true, force: true });
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
