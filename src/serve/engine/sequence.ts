/**
 * One sequence of a request on its way through the engine: its prompt in chunks, then a token a step. Knows
 * sampling, stop strings and text; the scheduler knows when it runs.
 */
import type { Constraint } from "../../grammar/constraint.js";
import type { FinishReason } from "../../runtime/generate.js";
import type { Session } from "../../runtime/model.js";
import { Sampler, type SamplingOptions } from "../../runtime/sampling.js";
import { StopMatcher } from "../../runtime/stop.js";
import type { Detokenizer } from "../../text/detokenizer.js";
import type { Tokenizer } from "../../text/tokenizer.js";
import { EventQueue } from "./events.js";
import { type ScoredToken, scoreToken } from "./token-logprobs.js";

export interface SequenceRequest {
  /** At least one. */
  readonly ids: readonly number[];
  /** Tokens to generate at most; ids.length + maxTokens fit the context. */
  readonly maxTokens: number;
  readonly sampling: SamplingOptions;
  /** What the answer must be; freed by the sequence at its end. Default: any text. */
  readonly constraint?: Constraint | undefined;
  readonly stop: readonly string[];
  /** The text is one of its own, whose first word has no leading space, rather than a continuation. */
  readonly answer: boolean;
  /** Score generated tokens, with as many alternatives; null for not at all. */
  readonly logprobs: number | null;
  /** Score the prompt's tokens. */
  readonly promptLogprobs: number | null;
}

export type SequenceEvent =
  /** The prompt's tokens from the second on, where they were asked to be scored. */
  | { readonly type: "prompt"; readonly scores: readonly ScoredToken[] }
  /** `text` is what has become certain. */
  | { readonly type: "token"; readonly id: number; readonly text: string; readonly score: ScoredToken | null }
  /** The last one; `text` was held back until now. */
  | { readonly type: "end"; readonly text: string; readonly finishReason: Exclude<FinishReason, "abort"> };

export class Sequence {
  readonly request: SequenceRequest;
  readonly signal: AbortSignal;
  readonly events = new EventQueue<SequenceEvent>();
  readonly queuedAt = performance.now();
  startedAt = 0;
  session: Session | null = null;
  /** The token to run in the next step; null while the prompt is not through, and at the end. */
  next: number | null = null;
  done = false;
  /** Resolves when it knows which tokens its format allows, and has chosen the next; null while nothing is to wait for. */
  choosing: Promise<void> | null = null;
  readonly #endIds: ReadonlySet<number>;
  readonly #sampler: Sampler;
  readonly #matcher: StopMatcher;
  readonly #detokenizer: Detokenizer;
  readonly #scores: ScoredToken[] = [];
  #tokens = 0;

  /** UsageError for sampling options out of range. */
  constructor(
    tokenizer: Tokenizer,
    endIds: ReadonlySet<number>,
    request: SequenceRequest,
    signal: AbortSignal,
  ) {
    this.request = request;
    this.signal = signal;
    this.#endIds = endIds;
    this.#sampler = new Sampler({ ...request.sampling, logprobs: false });
    this.#sampler.observe(request.ids);
    this.#matcher = new StopMatcher(request.stop);
    this.#detokenizer = tokenizer.createDetokenizer({ startOfText: request.answer });
  }

  /** Positions of the KV cache that it needs: the last generated token is not run. */
  get capacity(): number {
    const { ids, maxTokens } = this.request;
    return ids.length + Math.max(0, maxTokens - 1);
  }

  get prefilled(): boolean {
    return this.session !== null && this.session.position >= this.request.ids.length;
  }

  /**
   * Its prompt is so short that it may run as a piece of a batch, where each token attends on its own, and nobody
   * wants the prompt's log-probabilities.
   */
  get short(): boolean {
    const { ids, promptLogprobs } = this.request;
    return ids.length <= SHORT_PROMPT && promptLogprobs === null;
  }

  /** What a batch runs of it next: a short prompt, or the token chosen last. */
  pending(): Int32Array {
    return this.prefilled ? Int32Array.of(this.next!) : Int32Array.from(this.request.ids);
  }

  /** Tokens generated so far. */
  get tokens(): number {
    return this.#tokens;
  }

  /** Runs up to `chunk` tokens of the prompt, and chooses the first token after its last one. Returns how many. */
  async prefill(chunk: number): Promise<number> {
    const session = this.session!;
    const { ids, promptLogprobs } = this.request;
    const from = session.position;
    const rest = ids.length - from;
    // A few tokens alone are computed another way (src/compute), equal to rounding only: none is left over.
    const count = rest < chunk + SMALLEST_CHUNK ? rest : chunk;
    const input = Int32Array.from(ids.slice(from, from + count));
    const scored = promptLogprobs !== null;
    const logits = await session.forward(input, { logits: scored ? "all" : "last" });
    const vocabulary = scored ? logits.length / count : logits.length;
    if (scored)
      for (let i = 0; i < count && from + i + 1 < ids.length; i++) {
        const row = logits.subarray(i * vocabulary, (i + 1) * vocabulary);
        this.#scores.push(scoreToken(row, ids[from + i + 1], promptLogprobs));
      }
    if (this.prefilled) {
      if (scored) this.events.push({ type: "prompt", scores: this.#scores });
      this.accept(logits.subarray(logits.length - vocabulary));
    }
    return count;
  }

  /** Takes the logits after the last token that was run: chooses the next one, or ends; with a format a little later. */
  accept(logits: Float32Array): void {
    const { maxTokens, constraint } = this.request;
    this.next = null;
    if (maxTokens === 0) this.#end("length");
    else if (!constraint) this.#choose(logits);
    else {
      // The others' next step overwrites them.
      const kept = logits.slice();
      this.choosing = constraint
        .mask()
        .then((mask) => {
          if (!this.done) this.#choose(kept, mask);
        })
        .catch((error) => this.fail(error))
        .finally(() => {
          this.choosing = null;
        });
    }
  }

  #choose(logits: Float32Array, mask?: Int32Array): void {
    const { maxTokens, logprobs, constraint } = this.request;
    const { id } = this.#sampler.next(logits, mask);
    if (this.#endIds.has(id)) {
      this.#end("stop");
      return;
    }
    this.#tokens++;
    constraint?.accept(id);
    const score = logprobs === null ? null : scoreToken(logits, id, logprobs);
    const { text, stopped } = this.#matcher.push(this.#detokenizer.push(id));
    this.events.push({ type: "token", id, text, score });
    if (stopped) this.#end("stop");
    else if (this.#tokens === maxTokens) this.#end("length");
    else this.next = id;
  }

  /** Ends without a last event; whoever reads the events gets the error. */
  fail(error: unknown): void {
    if (!this.done) this.request.constraint?.free();
    this.done = true;
    this.events.end(error);
  }

  #end(finishReason: "stop" | "length"): void {
    this.events.push({ type: "end", text: this.#matcher.finish(this.#detokenizer.flush()), finishReason });
    this.events.end();
    this.request.constraint?.free();
    this.done = true;
  }
}

/** A prompt's last piece is not shorter than this, where it has several. */
export const SMALLEST_CHUNK = 8;
const SHORT_PROMPT = 64;
