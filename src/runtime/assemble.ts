/**
 * A model on disk, opened, turned into a model in memory. Knows nothing of files: `load.ts` opens them in
 * Node, a browser opens them its own way.
 */
import type { TokenizerFiles } from "../checkpoint/checkpoint.js";
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend } from "../compute/backend.js";
import { createBackend } from "../compute/create.js";
import { InputError } from "../errors.js";
import type { OnProgress } from "../progress.js";
import { createTokenizer } from "../text/tokenizer.js";
import { TransformerBatch } from "../transformer/batch.js";
import { TransformerSession } from "../transformer/session.js";
import { freeWeights, loadWeights, type WeightSource, weightBytes } from "../transformer/weights.js";
import type { LoadedModel } from "./model.js";

/** What is needed of an opened checkpoint or PocketLLM folder. */
export interface OpenedModel {
  /** What the user named, for messages. */
  readonly source: string;
  readonly config: ModelConfig;
  tokenizer(): Promise<TokenizerFiles | null>;
  /** The weights as Linears on `backend`; coded matrices stay coded. */
  weights(backend: Backend): WeightSource;
  close(): Promise<void>;
}

export interface LoadModelOptions {
  /** Threads to compute with. Default: the cores, at most 8. */
  readonly threads?: number | undefined;
  /** Longest sequence in tokens. Default and most: the model's own context. */
  readonly context?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: OnProgress | undefined;
}

/**
 * Loads tokenizer and weights and closes `opened`, whatever happens. InputError when there is no tokenizer, a
 * tensor is damaged, or memory does not suffice.
 */
export async function assembleModel(
  opened: OpenedModel,
  { threads, context, signal, onProgress }: LoadModelOptions = {},
): Promise<LoadedModel> {
  const started = performance.now();
  const { source, config } = opened;
  let backend: Backend | undefined;
  try {
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
    backend = await createBackend({ threads });
    const owner = backend;
    const weights = await loadWeights(owner, config, opened.weights(owner), { signal, onProgress });
    return {
      config,
      tokenizer,
      contextLength,
      bytes: weightBytes(weights),
      loadSeconds: (performance.now() - started) / 1000,
      createSession(capacity) {
        if (capacity > contextLength)
          throw new InputError(`${capacity} tokens are more than the context of ${contextLength}`);
        return new TransformerSession(owner, weights, capacity);
      },
      createBatch: (options) => new TransformerBatch(owner, weights, { ...options, capacity: contextLength }),
      async close() {
        freeWeights(owner, weights);
        await owner.close();
      },
    };
  } catch (error) {
    await backend?.close();
    throw error;
  } finally {
    await opened.close();
  }
}
