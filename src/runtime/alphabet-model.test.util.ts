/**
 * A language model for tests: a Markov chain over bytes that recites the alphabet. After "a" comes "b", after
 * "z" the end of the text; any other byte is followed by "a". The
 * successor has the logit 10, every other token -10. Its sessions keep the rules of `Session`.
 */
import assert from "node:assert/strict";
import type { ModelConfig } from "../checkpoint/config.js";
import { byteLevelFiles } from "../text/fixtures.test.util.js";
import { createTokenizer } from "../text/tokenizer.js";
import type { LanguageModel, Session } from "./model.js";

const A = "a".charCodeAt(0);
const Z = "z".charCodeAt(0);

export interface AlphabetModel extends LanguageModel {
  /** Every call of `forward`, in order: where it began and how many tokens it had. */
  readonly forwards: { readonly position: number; readonly tokens: number }[];
  readonly openSessions: () => number;
}

export interface AlphabetOptions {
  readonly contextLength?: number;
  readonly chatTemplate?: string | null;
  /** Other successors, by ASCII character. */
  readonly follows?: Readonly<Record<string, string>>;
  /** Runs in every `forward`, with the number of calls before it. */
  readonly onForward?: (call: number) => void;
}

/** A plain chat template: `<|im_start|>role:content<|im_end|>`, then `<|im_start|>assistant:`. */
export const CHAT_TEMPLATE =
  "{% for m in messages %}{{ '<|im_start|>' + m.role + ':' + m.content + '<|im_end|>' }}{% endfor %}" +
  "{% if add_generation_prompt %}<|im_start|>assistant:{% endif %}";

export function alphabetModel(options: AlphabetOptions = {}): AlphabetModel {
  const { contextLength = 128, chatTemplate = CHAT_TEMPLATE, follows = {}, onForward } = options;
  const tokenizer = createTokenizer(byteLevelFiles({ chat_template: chatTemplate }));
  const end = tokenizer.eosTokenId!;
  const forwards: { position: number; tokens: number }[] = [];
  let open = 0;

  const next = (id: number): number => {
    const other = follows[String.fromCharCode(id)];
    if (other !== undefined) return other.charCodeAt(0);
    if (id === Z) return end;
    return id >= A && id < Z ? id + 1 : A;
  };
  const createSession = (capacity: number): Session => {
    assert.ok(capacity >= 1 && capacity <= contextLength, `capacity ${capacity}`);
    open++;
    let position = 0;
    return {
      capacity,
      get position() {
        return position;
      },
      async forward(ids, { logits: wanted = "last" } = {}) {
        assert.ok(ids.length > 0 && position + ids.length <= capacity, "fits the session");
        onForward?.(forwards.length);
        forwards.push({ position, tokens: ids.length });
        position += ids.length;
        const rows = wanted === "all" ? ids : ids.subarray(ids.length - 1);
        const logits = new Float32Array(rows.length * tokenizer.vocabularySize).fill(-10);
        for (const [row, id] of rows.entries()) logits[row * tokenizer.vocabularySize + next(id)] = 10;
        return logits;
      },
      truncate(to) {
        assert.ok(to >= 0 && to <= position);
        position = to;
      },
      shift(keep, discard) {
        assert.ok(keep >= 0 && discard >= 0 && keep + discard <= position);
        position -= discard;
      },
      free() {
        open--;
      },
    };
  };
  return {
    config: { ...CONFIG, contextLength },
    tokenizer,
    contextLength,
    createSession,
    forwards,
    openSessions: () => open,
  };
}

const CONFIG: ModelConfig = {
  architecture: "llama",
  vocabularySize: 267,
  hiddenSize: 1,
  intermediateSize: 1,
  layers: 1,
  heads: 1,
  kvHeads: 1,
  headSize: 1,
  contextLength: 128,
  ropeTheta: 10000,
  ropeScaling: null,
  rmsNormEpsilon: 1e-5,
  tiedEmbeddings: true,
  qkvBias: false,
  outputBias: false,
  mlpBias: false,
  qkNorm: false,
  slidingWindow: null,
  bosTokenId: null,
  eosTokenIds: [],
};
