// Writes hostile and broken models, one file or folder an attack, each a valid tiny model with one thing wrong
// (checkpoint-folders.mjs, checkpoint-files.mjs). README.md lists them. Needs `npm run build`.
//
// As a program: node test/hostile/checkpoints.mjs DIR
import { cp, mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { FILES } from "./checkpoint-files.mjs";
import { FOLDERS, VALID } from "./checkpoint-folders.mjs";
import { makeTinyLlama } from "./tiny-llama.mjs";

/**
 * Writes all into `dir`. Returns for each: `path`, `name`, `expect` (what the one line must say) and `when` it
 * must be refused: "open", "read" (some weight) or "tokenizer".
 */
export async function makeHostileCheckpoints(dir) {
  await mkdir(dir, { recursive: true });
  const valid = join(dir, "valid");
  await makeTinyLlama(valid, VALID);
  const cases = [];
  for (const [name, expect, attack, when = "open"] of [...FOLDERS, ...FILES]) {
    const path = join(dir, name);
    await rm(path, { recursive: true, force: true });
    if (!name.includes(".")) await cp(valid, path, { recursive: true });
    await attack(path);
    cases.push({ name, path, expect, when });
  }
  await rm(valid, { recursive: true });
  return cases;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  if (process.argv.length !== 3) {
    console.error("usage: node test/hostile/checkpoints.mjs DIR");
    process.exit(2);
  }
  for (const { path } of await makeHostileCheckpoints(process.argv[2])) console.log(path);
}
