/** Every hostile folder of test/hostile is refused in one line that names what is wrong, by reader and `verify`. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { InputError } from "../errors.js";
import type { PocketFolder } from "./folder.js";
import { openFolder } from "./reader.js";
import { writeTinyFolder } from "./tiny-folder.test.util.js";
import { verifyFolder } from "./verify.js";

interface HostileCase {
  readonly name: string;
  readonly path: string;
  readonly expect: RegExp;
  readonly when: "open" | "read";
}

const hostile = new URL("../../test/hostile/", import.meta.url);

async function readAll(folder: PocketFolder): Promise<void> {
  for (const layer of folder.layers.keys()) await folder.coded(layer);
  for (const name of folder.plainNames) await folder.plain(name);
  await folder.adapter();
}

describe("hostile folders", () => {
  let work: string;
  let cases: HostileCase[];
  before(async () => {
    work = await mkdtemp(join(tmpdir(), "pocketllm-folders-"));
    const generator = (await import(new URL("folders.mjs", hostile).href)) as {
      makeHostileFolders(dir: string): Promise<HostileCase[]>;
    };
    cases = await generator.makeHostileFolders(work);
  });
  after(() => rm(work, { recursive: true }));

  test("each is refused", async (t) => {
    for (const { name, path, expect, when } of cases)
      await t.test(name, async () => {
        const start = performance.now();
        let opened: PocketFolder | undefined;
        try {
          await assert.rejects(
            async () => {
              opened = await openFolder(path);
              await readAll(opened);
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
        const { problems } = await verifyFolder(path);
        assert.ok(
          problems.some((problem) => expect.test(problem)),
          problems.join("\n"),
        );
        await assert.rejects(openFolder(path, { verify: true }), InputError);
        assert.ok(performance.now() - start < 5000, "took too long");
      });
  });

  test("folders.md lists exactly these", async () => {
    const listed = (await readFile(new URL("folders.md", hostile), "utf8")).matchAll(/^\| `([^`]+)` +\|/gm);
    assert.deepEqual([...listed].map((match) => match[1]).sort(), cases.map(({ name }) => name).sort());
  });
});

/** Runs `use` on a file system of `bytes`, or says why that is not possible here. */
async function onSmallDisk(bytes: number, use: (path: string) => Promise<void>): Promise<string | undefined> {
  if (process.platform !== "linux") return "needs Linux's tmpfs";
  const path = await mkdtemp(join(tmpdir(), "pocketllm-disk-"));
  try {
    try {
      execFileSync("mount", ["-t", "tmpfs", "-o", `size=${bytes}`, "tmpfs", path], { stdio: "ignore" });
    } catch {
      return "mounting a tmpfs is not permitted";
    }
    try {
      await use(path);
    } finally {
      execFileSync("umount", [path]);
    }
    return undefined;
  } finally {
    await rm(path, { recursive: true });
  }
}

test("a full disk is one clear line, and the run goes on when there is room", async (t) => {
  const skipped = await onSmallDisk(2 ** 20, async (disk) => {
    const out = join(disk, "model");
    const ballast = join(disk, "ballast");
    const full =
      /^the disk is full: what is finished is kept in .*model\.partial; free some space.*--resume$/;
    // Room for most of the journal, so that it is a layer that does not fit.
    execFileSync("dd", ["if=/dev/zero", `of=${ballast}`, "bs=1024", "count=960"], { stdio: "ignore" });
    await assert.rejects(writeTinyFolder({ out }), (error: Error) => {
      assert.ok(error instanceof InputError, error.stack);
      assert.match(error.message, full);
      return true;
    });
    const kept = await readdir(join(`${out}.partial`, "journal"));
    assert.ok(kept.length > 3, kept.join());
    assert.ok(!kept.some((name) => name.endsWith(".partial")), "a torn entry was left behind");
    assert.deepEqual(await readdir(disk), ["ballast", "model.partial"]);

    // Room for the journal but not for the finished files.
    execFileSync("dd", ["if=/dev/zero", `of=${ballast}`, "bs=1024", "count=850"], { stdio: "ignore" });
    await assert.rejects(writeTinyFolder({ out, resume: true }), { message: full });
    assert.deepEqual(await readdir(disk), ["ballast", "model.partial"]);
    assert.deepEqual(await readdir(`${out}.partial`), ["journal"]);

    await rm(ballast);
    await writeTinyFolder({ out, resume: true });
    assert.deepEqual((await verifyFolder(out)).problems, []);
    assert.deepEqual(await readdir(disk), ["model"]);
  });
  if (skipped) t.skip(skipped);
});
