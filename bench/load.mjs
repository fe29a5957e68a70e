// What loading a model takes, each time in a process of its own: milliseconds by the clock and of CPU, most memory
// resident, medians. Several builds (folders with dist/ and node_modules/) by turns, so that a machine's moods fall on all.
//   node bench/load.mjs MODEL [--threads 2] [--runs 10] [--builds .,DIR…]
import { execFileSync } from "node:child_process";
import { resolve } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    threads: { type: "string", default: "2" },
    runs: { type: "string", default: "10" },
    builds: { type: "string", default: fileURLToPath(new URL("..", import.meta.url)) },
    once: { type: "boolean", default: false },
  },
});
const [model] = positionals;
if (!model) throw new Error("give a model");
const builds = values.builds.split(",").map((build) => resolve(build));

if (values.once) {
  const { loadModel } = await import(pathToFileURL(resolve(builds[0], "dist/index.js")));
  const cpu = process.cpuUsage();
  const start = performance.now();
  const loaded = await loadModel(model, { threads: Number(values.threads) });
  const clock = performance.now() - start;
  const { user, system } = process.cpuUsage(cpu);
  const peak = process.resourceUsage().maxRSS / 1000;
  await loaded.close();
  console.log(JSON.stringify([clock, (user + system) / 1000, peak]));
} else {
  const runs = new Map(builds.map((build) => [build, []]));
  for (let run = 0; run < Number(values.runs); run++)
    for (const build of builds) {
      const args = [
        fileURLToPath(import.meta.url),
        model,
        "--once",
        "--threads",
        values.threads,
        "--builds",
        build,
      ];
      runs.get(build).push(JSON.parse(execFileSync(process.execPath, args)));
    }
  console.log("load, ms   CPU, ms   peak, MB");
  for (const [build, figures] of runs) {
    const cells = [0, 1, 2].map((i) => {
      const sorted = figures.map((figure) => figure[i]).sort((a, b) => a - b);
      return sorted[sorted.length >> 1].toFixed(0);
    });
    console.log(cells[0].padStart(8), cells[1].padStart(9), cells[2].padStart(10), ` ${build}`);
  }
}
