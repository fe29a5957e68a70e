/** A language model whose every probability is known: a first-order Markov chain over letters, for tests. */
import { InputError } from "../errors.js";
import type { LanguageModel, Session } from "../runtime/model.js";
import type { Tokenizer } from "../text/tokenizer.js";
import { tinyConfig } from "../transformer/tiny-model.test.util.js";

/** Row t: probabilities of the token after t. Letter "a" is token 0. */
export type Transitions = readonly (readonly number[])[];

export interface MarkovOptions {
  readonly transitions: Transitions;
  readonly contextLength?: number;
  /** The tokenizer puts this id first. */
  readonly bos?: number;
}

export interface MarkovModel extends LanguageModel {
  /** Sessions created and not yet freed. */
  readonly openSessions: () => number;
  /** The inputs of every forward. */
  readonly inputs: number[][];
}

export function markovModel({ transitions, contextLength = 64, bos }: MarkovOptions): MarkovModel {
  const vocabularySize = transitions.length;
  const config = tinyConfig({ vocabularySize, contextLength });
  const inputs: number[][] = [];
  let open = 0;
  const createSession = (capacity: number): Session => {
    if (capacity > contextLength) throw new InputError("too long");
    open++;
    let position = 0;
    return {
      capacity,
      get position() {
        return position;
      },
      async forward(ids, options) {
        if (position + ids.length > capacity) throw new InputError("does not fit");
        position += ids.length;
        inputs.push([...ids]);
        const rows = options?.logits === "all" ? [...ids] : [ids[ids.length - 1]];
        return Float32Array.from(rows.flatMap((id) => transitions[id].map(Math.log)));
      },
      truncate(to) {
        position = to;
      },
      free() {
        open--;
      },
    };
  };
  return {
    config,
    tokenizer: letterTokenizer(vocabularySize, bos),
    contextLength,
    createSession,
    openSessions: () => open,
    inputs,
  };
}

function letterTokenizer(vocabularySize: number, bos: number | undefined): Tokenizer {
  const encodeLong: Tokenizer["encodeLong"] = (text, { addSpecialTokens = true } = {}) => {
    const ids = Array.from(text, (c) => c.charCodeAt(0) - 97);
    return Int32Array.from(addSpecialTokens && bos !== undefined ? [bos, ...ids] : ids);
  };
  return {
    vocabularySize,
    bosTokenId: bos ?? null,
    eosTokenId: null,
    addsBos: bos !== undefined,
    chatTemplate: null,
    encode: (text, options) => [...encodeLong(text, options)],
    encodeLong,
    decode: (ids) => Array.from(ids, (id) => String.fromCharCode(id + 97)).join(""),
    tokenId: (token) => token.charCodeAt(0) - 97,
    applyChatTemplate: () => {
      throw new InputError("no chat template");
    },
  };
}
