/**
 * The thread that holds the grammars of answers: the library, xgrammar in WebAssembly, aborts on schemas that it does
 * not like, and one that it loses itself in must not hold up everything else (Node only).
 */
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { parentPort, workerData } from "node:worker_threads";
import type { CompiledGrammar, GrammarMatcher } from "@mlc-ai/web-xgrammar";
import type { GrammarReply, GrammarRequest, GrammarVocabulary } from "./messages.js";

type Library = typeof import("@mlc-ai/web-xgrammar");

/** Compiled schemas that are kept for the next answer: one takes a few megabytes and 20 to 1000 ms. */
const KEPT = 4;

/** The library says what is wrong on the console before it aborts. */
const said: string[] = [];
console.error = (...parts: unknown[]) => {
  said.push(parts.join(" "));
  if (said.length > 20) said.shift();
};
console.warn = console.error;
console.log = console.error;

const library = await loadLibrary();
const { tokens, endIds } = workerData as GrammarVocabulary;
const vocabulary = await library.TokenizerInfo.createTokenizerInfo(
  [...tokens],
  "byte_level",
  false,
  tokens.length,
  [...endIds],
);
const compiler = await library.GrammarCompiler.createGrammarCompiler(vocabulary, false);
const compiled = new Map<string, CompiledGrammar>();
const matchers = new Map<number, GrammarMatcher>();
let last = Promise.resolve();

parentPort!.on("message", (request: GrammarRequest) => {
  // One after the other: some of the library's calls are asynchronous.
  last = last.then(() => answer(request));
});

async function answer(request: GrammarRequest): Promise<void> {
  const { key, number } = request;
  said.length = 0;
  try {
    if (request.do === "free") {
      matchers.get(key)?.dispose();
      matchers.delete(key);
      return;
    }
    if (request.do === "start") {
      const grammar = await compile(request.schema, request.strict);
      matchers.set(key, await library.GrammarMatcher.createGrammarMatcher(grammar));
    }
    const matcher = matchers.get(key);
    if (!matcher) throw new Error("there is no such answer");
    if (request.do === "accept" && !matcher.acceptToken(request.id))
      throw new Error(`token ${request.id} is not one of those that may follow`);
    const mask = (await matcher.getNextTokenBitmask()).slice();
    send({ number, mask }, [mask.buffer]);
  } catch (error) {
    send({ number, error: reasonOf(error), broken: !isComplaint(error) });
  }
}

async function compile(schema: string, strict: boolean): Promise<CompiledGrammar> {
  const name = `${strict} ${schema}`;
  const found = compiled.get(name);
  compiled.delete(name);
  // In one line, as Python's json.dumps writes it: small models that may break lines often do nothing else.
  const grammar = found ?? (await compiler.compileJSONSchema(schema, false, -1, undefined, strict));
  compiled.set(name, grammar);
  for (const [oldest, old] of compiled) {
    if (compiled.size <= KEPT) break;
    compiled.delete(oldest);
    old.dispose();
  }
  return grammar;
}

/** An abort after a message, from which the library goes on; all else may have damaged its memory. */
function isComplaint(error: unknown): boolean {
  return error instanceof Error && /^Aborted/.test(error.message) && complaint() !== undefined;
}

function complaint(): string | undefined {
  const line = said.find((text) => text.startsWith("[FATAL]"));
  return line?.replace(/^\[FATAL\] \S+: (Check failed: \(.*?\) is false: )?/, "").slice(0, 300);
}

function reasonOf(error: unknown): string {
  return (complaint() ?? (error instanceof Error ? error.message : String(error))).split("\n")[0];
}

function send(reply: GrammarReply, transfer: ArrayBuffer[] = []): void {
  parentPort!.postMessage(reply, transfer);
}

/** The package says that its file is a module, which it is not: it fits CommonJS and a browser's script. */
async function loadLibrary(): Promise<Library> {
  const path = fileURLToPath(import.meta.resolve("@mlc-ai/web-xgrammar"));
  const module = { exports: {} };
  const run = new Function("exports", "module", "require", "__filename", await readFile(path, "utf8"));
  run(module.exports, module, createRequire(import.meta.url), path);
  return module.exports as Library;
}
