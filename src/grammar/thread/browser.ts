/**
 * Grammars in a worker of a page: grammar.js and xgrammar.js lie beside the bundle (scripts/build-browser.mjs) and
 * are fetched when the first answer has a format. The `new URL("literal", import.meta.url)` form is what bundlers
 * of applications recognise: keep it literal.
 */
import { InputError } from "../../errors.js";
import type { GrammarRequest, GrammarVocabulary } from "../messages.js";
import type { GrammarLibrary, GrammarThreads } from "./thread.js";

export const threads: GrammarThreads = {
  start(vocabulary, onReply, onError) {
    const worker = new Worker(new URL("./grammar.js", import.meta.url), { type: "module" });
    worker.onmessage = (event) => onReply(event.data);
    worker.onerror = (event) =>
      onError(
        new InputError(
          event.message || "grammar.js could not be loaded; it must be served from beside the script",
        ),
      );
    worker.postMessage(vocabulary);
    return {
      post: (request) => worker.postMessage(request),
      keepAlive() {},
      async terminate() {
        worker.onmessage = null;
        worker.onerror = null;
        worker.terminate();
      },
    };
  },

  serve(begin) {
    // What comes first is the vocabulary; what comes while the library is loaded waits in line.
    let vocabulary: (value: GrammarVocabulary) => void = () => {};
    const started = new Promise<GrammarVocabulary>((resolve) => {
      vocabulary = resolve;
    }).then(async (given) => begin(await loadLibrary(), given));
    let first = true;
    addEventListener("message", ({ data }) => {
      if (first) vocabulary(data as GrammarVocabulary);
      else
        started.then((answer) =>
          answer(data as GrammarRequest, (reply, transfer) => postMessage(reply, { transfer })),
        );
      first = false;
    });
    started.catch(reportError);
  },
};

/** A script, no module: it puts its exports where everybody finds them. */
async function loadLibrary(): Promise<GrammarLibrary> {
  const script = new URL("./xgrammar.js", import.meta.url).href;
  await import(/* @vite-ignore */ script);
  return (globalThis as unknown as { xgrammar: GrammarLibrary }).xgrammar;
}
