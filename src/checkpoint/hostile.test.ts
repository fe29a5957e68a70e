/** Every hostile file of test/hostile is refused in one line that names what is wrong, quickly, without much memory. */
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { InputError } from "../errors.js";
import type { Checkpoint } from "./checkpoint.js";
import { openCheckpoint } from "./open.js";
import { hostileModule } from "./test-data.test.util.js";

interface HostileCase {
  readonly name: string;
  readonly path: string;
  readonly expect: RegExp;
  readonly when: "open" | "read" | "tokenizer";
}

describe("hostile checkpoints", () => {
  let folder: string;
  let cases: HostileCase[];
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "pocketllm-hostile-"));
    const generator = await hostileModule<{
      makeHostileCheckpoints(dir: string): Promise<HostileCase[]>;
    }>("checkpoints.mjs");
    cases = await generator.makeHostileCheckpoints(folder);
  });
  after(() => rm(folder, { recursive: true }));

  test("each is refused", async (t) => {
    for (const { name, path, expect, when } of cases)
      await t.test(name, async () => {
        const start = performance.now();
        const held = process.memoryUsage().arrayBuffers;
        let opened: Checkpoint | undefined;
        try {
          await assert.rejects(
            async () => {
              opened = await openCheckpoint(path);
              if (when === "read") for (const tensor of opened.tensors.keys()) await opened.read(tensor);
              if (when === "tokenizer") await opened.tokenizer();
            },
            (error: Error) => {
              assert.ok(error instanceof InputError, error.stack);
              assert.match(error.message, expect);
              assert.ok(error.message.startsWith(path), error.message);
              assert.doesNotMatch(error.message, /[\p{Cc}\p{Zl}\p{Zp}]/u);
              return true;
            },
          );
          assert.equal(opened !== undefined, when !== "open", "refused at another time");
        } finally {
          await opened?.close();
        }
        // Generous for a busy machine; a 2^31-byte allocation or a loop over 2^32 counts takes more.
        assert.ok(performance.now() - start < 5000, "took too long");
        assert.ok(process.memoryUsage().arrayBuffers - held < 64 * 2 ** 20, "took too much memory");
      });
  });

  test("README.md lists exactly these", async () => {
    const readme = await readFile(new URL("../../test/hostile/README.md", import.meta.url), "utf8");
    const attacks = readme.slice(readme.indexOf("## "));
    const listed = [...attacks.matchAll(/^\| `([^`]+)` +\|/gm)].map((match) => match[1]);
    // Named pipes do not exist on Windows.
    const names = new Set([...cases.map(({ name }) => name), "weights-are-a-pipe"]);
    assert.deepEqual(listed.sort(), [...names].sort());
  });
});
