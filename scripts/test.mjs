// Runs the compiled test suites with Node's own runner. --real adds the long ones (*.real.test.js); other
// arguments filter by substring of the file's path.
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const args = process.argv.slice(2);
const real = args.includes("--real");
const filters = args.filter((a) => !a.startsWith("--"));
// Named by the sources: dist keeps what was compiled from a file that is there no more.
const files = readdirSync("src", { recursive: true })
  .map((f) => join("dist", String(f).replace(/\.ts$/, ".js")))
  .filter((f) => f.endsWith(".test.js") && f.endsWith(".real.test.js") === real)
  .filter((f) => filters.length === 0 || filters.some((s) => f.includes(s)))
  .sort();
if (files.length === 0 || !files.every(existsSync)) {
  console.error(
    files.length === 0 ? "no test of that name" : "tests are not compiled: run `npm run build` first",
  );
  process.exit(1);
}
// No test asks the hub on the internet: those that need one start their own.
const env = {
  ...process.env,
  HF_ENDPOINT: "http://127.0.0.1:9",
  HF_HOME: join(tmpdir(), "pocketllm-no-hub"),
};
const { status } = spawnSync(process.execPath, ["--test", "--test-concurrency=2", ...files], {
  stdio: "inherit",
  env,
});
process.exit(status ?? 1);
