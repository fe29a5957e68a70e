/** A language model whose every probability is known: a first-order Markov chain over letters, for tests. */
import { InputError } from "../errors.js";
import type { Session } from "../runtime/model.js";
import { tinyConfig } from "../transformer/tiny-model.test.util.js";
import type { EvaluatedModel } from "./evaluate.js";
import type { EvaluatedTokenizer } from "./protocol.js";

/** Row t: probabilities of the token after t. Letter "a" is token 0. */
export type Transitions = readonly (readonly number[])[];

export interface MarkovOptions {
  readonly transitions: Transitions;
  readonly contextLength?: number;
  /** The tokenizer puts this id first. */
  readonly bos?: number;
}

export interface MarkovModel extends EvaluatedModel {
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
      shift() {
        throw new Error("evaluation does not shift");
      },
      free() {
        open--;
      },
    };
  };
  return {
    config,
    tokenizer: letterTokenizer(bos),
    contextLength,
    createSession,
    openSessions: () => open,
    inputs,
  };
}

function letterTokenizer(bos: number | undefined): EvaluatedTokenizer {
  return {
    bosTokenId: bos ?? null,
    addsBos: bos !== undefined,
    eosTokenId: null,
    encodeLong(text, { addSpecialTokens = true } = {}) {
      const ids = Array.from(text, (c) => (c === " " ? 0 : c.charCodeAt(0) - 97));
      return Int32Array.from(addSpecialTokens && bos !== undefined ? [bos, ...ids] : ids);
    },
  };
}
