/** PocketLLM folders over HTTP: from a server that behaves, and from all kinds that do not. */
import assert from "node:assert/strict";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, describe, test } from "node:test";
import { InputError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { loadModel } from "../runtime/load.js";
import { PocketFolder } from "./folder.js";
import { folderAtUrl } from "./folder-at-url.js";
import { folderOfFiles } from "./folder-of-files.js";
import { openFolder } from "./reader.js";
import { writeTinyFolder } from "./tiny-folder.test.util.js";

/** Stands for the first weight file among a server's answers. */
const weights = "weights";

type Answer = (file: Buffer, response: ServerResponse, request: IncomingMessage) => void;

describe("folders over HTTP", () => {
  let work: string;
  let path: string;
  const files = new Map<string, Buffer>();

  before(async () => {
    work = await mkdtemp(join(tmpdir(), "pocketllm-http-"));
    path = join(work, "tiny");
    await writeTinyFolder({ out: path, shardBytes: 4000 });
    for (const name of await readdir(path)) files.set(name, await readFile(join(path, name)));
    assert.ok([...files.keys()].filter((name) => name.endsWith(".safetensors")).length > 1);
  });
  after(() => rm(work, { recursive: true }));

  /** A server of the folder that answers as usual except for the files of `answers`. */
  async function serving<T>(answers: Record<string, Answer>, use: (url: string) => Promise<T>): Promise<T> {
    const server = createServer((request, response) => {
      const name = new URL(request.url!, "http://host").pathname.replace("/models/tiny/", "");
      const file = files.get(name);
      const answer = answers[name] ?? (name.startsWith("model-00001") ? answers[weights] : undefined);
      if (answer) answer(file ?? Buffer.alloc(0), response, request);
      else if (file) response.end(file);
      else response.writeHead(404).end();
    });
    await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));
    try {
      return await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}/models/tiny`);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  }

  const open = async (url: string, onProgress?: OnProgress) =>
    await PocketFolder.open(await folderAtUrl(new URL(url), { onProgress }));

  async function readAll(folder: PocketFolder, backwards = false): Promise<unknown[]> {
    const read = [
      ...[...folder.layers.keys()].map((name) => () => folder.coded(name)),
      ...folder.plainNames.map((name) => () => folder.plain(name)),
    ];
    const results: unknown[] = new Array(read.length);
    const order = [...read.keys()];
    for (const i of backwards ? order.reverse() : order) results[i] = await read[i]();
    results.push(folder.config, await folder.tokenizer());
    return results;
  }

  test("is what it is on disk, in whatever order it is read, each file fetched once", async () => {
    const disk = await openFolder(path);
    const expected = await readAll(disk);
    await disk.close();
    const fetched: string[] = [];
    const log = Object.fromEntries(
      [...files.keys()].map((name): [string, Answer] => [
        name,
        (file, response) => {
          fetched.push(name);
          response.end(file);
        },
      ]),
    );
    for (const [backwards, ending] of [
      [false, ""],
      [true, "/"],
      [false, "/pocketllm.json"],
    ] as const) {
      fetched.length = 0;
      await serving(log, async (url) => {
        let last = { done: 0, total: 0 };
        const folder = await open(`${url}${ending}`, (progress) => {
          assert.equal(progress.stage, "downloading");
          assert.ok(progress.done >= last.done && progress.total >= progress.done);
          last = progress;
        });
        assert.deepEqual(await readAll(folder, backwards), expected);
        await folder.close();
        assert.equal(last.done, last.total);
        // The index says nothing that the manifest does not.
        const needed = [...files.keys()].filter((name) => name !== "model.safetensors.index.json");
        assert.deepEqual(fetched.sort(), needed.sort());
      });
    }
  });

  test("files in memory and Blobs do as well", async () => {
    const disk = await openFolder(path);
    const expected = await readAll(disk);
    await disk.close();
    const mixed = new Map(
      [...files].map(([name, bytes], i) => {
        const copy = new Uint8Array(bytes);
        return [name, i % 2 === 0 ? copy : new Blob([copy])];
      }),
    );
    // Bytes come back as the class that they were given as.
    const plain = (results: unknown) =>
      JSON.stringify(results, (_, value) => (value instanceof Map ? [...value] : value));
    assert.equal(plain(await readAll(await PocketFolder.open(folderOfFiles(mixed)))), plain(expected));
    await assert.rejects(
      PocketFolder.open(folderOfFiles(new Map())),
      /the files given: has no pocketllm.json/,
    );
  });

  const changed = (file: Buffer) => {
    const copy = Buffer.from(file);
    copy[copy.length - 1] ^= 1;
    return copy;
  };
  const bad: [what: string, answers: Record<string, Answer>, message: RegExp][] = [
    [
      "no folder",
      { "pocketllm.json": (_, response) => response.writeHead(404).end() },
      /^http:.*\/models\/tiny\/: has no pocketllm\.json, so it is no PocketLLM folder$/,
    ],
    [
      "a start page instead of 404",
      {
        "pocketllm.json": (_, response) => {
          response.setHeader("content-type", "text/html; charset=utf-8").end("<!doctype html>");
        },
      },
      /has no pocketllm\.json/,
    ],
    [
      "a locked door",
      { "pocketllm.json": (_, response) => response.writeHead(403).end() },
      /pocketllm\.json: the server answered HTTP 403$/,
    ],
    [
      "a changed configuration",
      { "config.json": (file, response) => response.end(changed(file)) },
      /config\.json: does not match its SHA-256/,
    ],
    [
      "a manifest that does not end",
      {
        "pocketllm.json": (_, response) => {
          const more = () => response.write(Buffer.alloc(2 ** 22, 0x20), (error) => error ?? more());
          more();
        },
      },
      /pocketllm\.json: has more than 67108864 bytes/,
    ],
    [
      "weights of another size",
      { [weights]: (file, response) => response.end(file.subarray(1)) },
      /safetensors: has \d+ bytes where pocketllm\.json says \d+/,
    ],
    [
      "a download that ends early",
      {
        [weights]: (file, response) => {
          response.write(file.subarray(0, 2000));
          response.end();
        },
      },
      /safetensors: the download ended after 2000 of \d+ bytes; load it again/,
    ],
    [
      "a connection that breaks",
      {
        [weights]: (file, response) => {
          response.write(file.subarray(0, 2000), () => response.destroy());
        },
      },
      /safetensors: (the connection broke|the download ended)/,
    ],
    [
      "weights that were changed",
      { [weights]: (file, response) => response.end(changed(file)) },
      /tensor ".*" in model-00001-of-\d+\.safetensors does not match its SHA-256/,
    ],
    [
      "a weight file that is missing",
      { [weights]: (_, response) => response.writeHead(404).end() },
      /safetensors: is missing, but pocketllm\.json lists it/,
    ],
  ];
  for (const [what, answers, message] of bad)
    test(`${what} is refused in one line`, async () => {
      await serving(answers, async (url) => {
        const attempt = async () => {
          const folder = await open(url);
          try {
            await readAll(folder);
          } finally {
            await folder.close();
          }
        };
        await assert.rejects(attempt(), (error) => {
          assert.ok(error instanceof InputError, String(error));
          assert.match(error.message, message);
          assert.doesNotMatch(error.message, /\n/);
          return true;
        });
      });
    });

  test("no server, other protocols, no cache, and an abort", async () => {
    await assert.rejects(loadModel("http://127.0.0.1:1/tiny"), /cannot be fetched: there is no such server/);
    await assert.rejects(
      loadModel(new URL("ftp://host/tiny")),
      /ftp:\/\/host\/tiny: is no http or https address/,
    );
    await assert.rejects(loadModel("http://127.0.0.1:1/", { cache: true }), /has Cache Storage/);
    const abort = new AbortController();
    const hang: Answer = (file, response) => {
      response.write(file.subarray(0, 5));
      setTimeout(() => abort.abort(new InputError("interrupted")), 20);
    };
    await serving({ "tokenizer.json": hang }, (url) =>
      assert.rejects(loadModel(url, { signal: abort.signal }), /interrupted/),
    );
  });
});
