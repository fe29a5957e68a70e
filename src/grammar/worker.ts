/**
 * The thread that holds the grammars of answers: the library, xgrammar in WebAssembly, aborts on schemas that it does
 * not like, and one that it loses itself in must not hold up everything else.
 */

import type { CompiledGrammar, GrammarMatcher } from "@mlc-ai/web-xgrammar";
import { threads } from "#grammar-thread";
import type { GrammarReply, GrammarRequest } from "./messages.js";

/** Compiled schemas that are kept for the next answer: one takes a few megabytes, and 10 ms to many seconds (maxLength). */
const KEPT = 4;

/** The library says what is wrong on the console before it aborts. */
const said: string[] = [];
console.error = (...parts: unknown[]) => {
  said.push(parts.join(" "));
  if (said.length > 20) said.shift();
};
console.warn = console.error;
console.log = console.error;

type Send = (reply: GrammarReply, transfer: ArrayBuffer[]) => void;

threads.serve(async (library, { tokens, endIds }) => {
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

  async function answer(request: GrammarRequest, send: Send): Promise<void> {
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
      send({ number, error: reasonOf(error), broken: !isComplaint(error) }, []);
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

  return (request, send) => {
    // One after the other: some of the library's calls are asynchronous.
    last = last.then(() => answer(request, send));
  };
});

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
