/** Grammars in a thread of Node. */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { parentPort, Worker, workerData } from "node:worker_threads";
import type { GrammarRequest, GrammarVocabulary } from "../messages.js";
import type { GrammarLibrary, GrammarThreads } from "./thread.js";

export const threads: GrammarThreads = {
  start(vocabulary, onReply, onError) {
    // No execArgv: flags such as --input-type are for the main script and make a worker fail.
    const worker = new Worker(new URL("../worker.js", import.meta.url), {
      workerData: vocabulary,
      execArgv: [],
    });
    worker.on("message", onReply);
    worker.on("error", onError);
    worker.unref();
    return {
      post: (request) => worker.postMessage(request),
      keepAlive(alive) {
        if (alive) worker.ref();
        else worker.unref();
      },
      async terminate() {
        await worker.terminate();
      },
    };
  },

  serve(begin) {
    const port = parentPort!;
    // A rejection that nobody handles ends the thread with it.
    loadLibrary().then(async (library) => {
      const answer = await begin(library, workerData as GrammarVocabulary);
      port.on("message", (request: GrammarRequest) =>
        answer(request, (reply, transfer) => port.postMessage(reply, transfer)),
      );
    });
  },
};

/** The package says that its file is a module, which it is not: it fits CommonJS and a browser's script. */
async function loadLibrary(): Promise<GrammarLibrary> {
  const path = fileURLToPath(import.meta.resolve("@mlc-ai/web-xgrammar"));
  const module = { exports: {} };
  const run = new Function("exports", "module", "require", "__filename", await readFile(path, "utf8"));
  run(module.exports, module, createRequire(import.meta.url), path);
  return module.exports as GrammarLibrary;
}
