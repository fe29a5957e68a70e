/** Where grammars run: a thread of Node or a worker of a page. `#grammar-thread` picks node.ts or browser.ts. */
import type { GrammarReply, GrammarRequest, GrammarVocabulary } from "../messages.js";

export type GrammarLibrary = typeof import("@mlc-ai/web-xgrammar");

export interface GrammarThread {
  post(request: GrammarRequest): void;
  /** Keep the process alive, or let it end, while this thread exists. Nothing in a page. */
  keepAlive(alive: boolean): void;
  terminate(): Promise<void>;
}

export interface GrammarThreads {
  start(
    vocabulary: GrammarVocabulary,
    onReply: (reply: GrammarReply) => void,
    onError: (error: Error) => void,
  ): GrammarThread;
  /**
   * In the thread: loads the library and hands every request to what `begin` gives; what fails before that is an error
   * of the thread. Not to be awaited: bundlers make scripts of workers, which have no top-level await.
   */
  serve(begin: (library: GrammarLibrary, vocabulary: GrammarVocabulary) => Promise<Answering>): void;
}

/** Takes one request; what it sends goes to `onReply`. */
export type Answering = (
  request: GrammarRequest,
  send: (reply: GrammarReply, transfer: ArrayBuffer[]) => void,
) => void;
