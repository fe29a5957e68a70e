/**
 * A model on disk, opened, turned into a model in memory. Knows nothing of files: `load.ts` opens them in
 * Node, a browser opens them its own way.
 */
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend } from "../compute/backend.js";
import { createBackend } from "../compute/create.js";
import type { WasmBackend } from "../compute/wasm/backend.js";
import { InputError, UsageError } from "../errors.js";
import { GrammarEngine } from "../grammar/engine.js";
import type { OnProgress } from "../progress.js";
import { createTokenizer } from "../text/tokenizer.js";
import { TransformerBatch } from "../transformer/batch.js";
import { CACHE_FORMATS, type CacheFormat } from "../transformer/kv-cache.js";
import type { Decoding } from "../transformer/scratch.js";
import { TransformerSession } from "../transformer/session.js";
import { freeWeights, loadWeights, type WeightSource, weightBytes } from "../transformer/weights.js";
import { endTokenIds, generate } from "./generate.js";
import type { LoadedModel } from "./loaded-model.js";

const DEFAULT_CACHE: CacheFormat = "f16";

/** What is needed of an opened checkpoint or PocketLLM folder. */
export interface OpenedModel {
  /** What the user named, for messages. */
  readonly source: string;
  readonly config: ModelConfig;
  tokenizer(): Promise<TokenizerFiles | null>;
  /** The weights as Linears on `backend`; coded matrices stay coded. */
  weights(backend: Backend): WeightSource | Promise<WeightSource>;
  /** Reading reports its own progress, in bytes of a download. */
  readonly reportsProgress?: boolean;
  close(): Promise<void>;
}

export interface LoadModelOptions {
  /**
   * Threads to compute with, the calling one included. Default: the cores, at most 8. Always one in a page that
   * is not cross-origin isolated.
   */
  readonly threads?: number | undefined;
  /** Longest sequence in tokens. Default and most: the model's own context. */
  readonly context?: number | undefined;
  /** How keys and values of past tokens are stored: "f16" (default), "f32" or "int8". */
  readonly kvCache?: CacheFormat | undefined;
  /** Keep what is downloaded from a URL in the browser's Cache Storage for the next visit. Default false. */
  readonly cache?: boolean | undefined;
  /** How tokens are computed one at a time: "fast" (default) or "exact", without the error of byte tables. */
  readonly decoding?: Decoding | undefined;
  /**
   * Node 24 and later on x64: have V8 compute 256 bits at a time where many tokens run together, in prompts and
   * batches (a fifth faster). It switches a V8 flag on for all WebAssembly that the process compiles later
   * (--experimental-wasm-revectorize); results are the same bits, compared when loading. Default false.
   */
  readonly joinVectors?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Stages "downloading" (bytes, from a URL) and "loading weights" (layers, from elsewhere). */
  readonly onProgress?: OnProgress | undefined;
}

/**
 * Opens a model, loads tokenizer and weights, and closes what was opened, whatever happens. InputError when there is no
 * tokenizer, a tensor is damaged, or memory does not suffice.
 */
export async function assembleModel(
  open: () => Promise<OpenedModel>,
  options: LoadModelOptions = {},
): Promise<LoadedModel> {
  const started = performance.now();
  const { threads, joinVectors, kvCache = DEFAULT_CACHE } = options;
  if (!CACHE_FORMATS.includes(kvCache))
    throw new UsageError(`the KV cache can be ${CACHE_FORMATS.join(", ")}, not ${kvCache}`);
  // Other threads start while this one opens the model and makes the tokenizer.
  const backend = await createBackend({ threads, joinVectors, early: true });
  try {
    const opened = await open();
    try {
      return await assemble(opened, backend, options, started);
    } finally {
      await opened.close();
    }
  } catch (error) {
    await backend.close();
    throw error;
  }
}

async function assemble(
  opened: OpenedModel,
  backend: WasmBackend,
  { context, kvCache = DEFAULT_CACHE, decoding = "fast", signal, onProgress }: LoadModelOptions,
  started: number,
): Promise<LoadedModel> {
  const { source, config } = opened;
  const contextLength = context ?? config.contextLength;
  if (contextLength > config.contextLength)
    throw new InputError(
      `${source}: a context of ${contextLength} tokens is longer than the model's: give ${config.contextLength} or less`,
    );
  const files = await opened.tokenizer();
  if (!files)
    throw new InputError(
      `${source}: has no tokenizer; put tokenizer.json and tokenizer_config.json beside it`,
    );
  const tokenizer = createTokenizer(files);
  const weights = await loadWeights(backend, config, await opened.weights(backend), {
    signal,
    onProgress: opened.reportsProgress ? undefined : onProgress,
  });
  await backend.runtime.started();
  let grammars: GrammarEngine | undefined;
  const model: LoadedModel = {
    config,
    tokenizer,
    contextLength,
    threads: backend.threads,
    bytes: weightBytes(weights),
    loadSeconds: (performance.now() - started) / 1000,
    createSession(capacity) {
      if (capacity > contextLength)
        throw new InputError(`${capacity} tokens are more than the context of ${contextLength}`);
      return new TransformerSession(backend, weights, capacity, { cache: kvCache, decoding });
    },
    createBatch: (options) =>
      new TransformerBatch(backend, weights, {
        ...options,
        capacity: contextLength,
        cache: kvCache,
        decoding,
      }),
    generate: (prompt, options) => generate(model, prompt, options),
    async createConstraint(format) {
      grammars ??= new GrammarEngine({
        tokenizer,
        vocabularySize: config.vocabularySize,
        endIds: endTokenIds(model),
      });
      return await grammars.constrain(format);
    },
    async close() {
      await grammars?.close();
      freeWeights(backend, weights);
      await backend.close();
    },
  };
  return model;
}
