/**
 * One token through layers and head whose matrices are coded: the products that share an input are one call,
 * with the norm or activation before and the addition to the residual stream after. Made ready once for the
 * buffers of a session, then run for each token. Approximate where the backend's token products are.
 */
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer, TokenProducts, TokenProductsOptions } from "../compute/backend.js";
import type { Linear } from "../compute/linear.js";
import { attendOver, type ForwardLayerOptions } from "./layer.js";
import type { LayerWeights } from "./weights.js";
import type { Workspace } from "./workspace.js";

/** Where the products of a Linear go. */
interface Target {
  readonly linear: Linear;
  readonly y: Buffer;
}

type Input = Pick<TokenProductsOptions, "x" | "norm" | "up" | "accumulate">;

/** Whether all Linears are coded for token products. */
export function areCoded(linears: readonly Linear[]): boolean {
  return linears.every((linear) => linear.coded !== undefined);
}

/** The products of one input: one call for all matrices of the same rotation. */
export class SharedInput {
  readonly #calls: TokenProducts[] = [];

  constructor(backend: Backend, input: Input, targets: readonly Target[]) {
    const rows = targets.flatMap(({ linear, y }) => linear.coded!.map((coded) => ({ ...coded, y })));
    try {
      for (const key of new Set(rows.map(({ rotationKey }) => rotationKey))) {
        const products = rows.filter(({ rotationKey }) => rotationKey === key);
        this.#calls.push(backend.tokenProducts({ ...input, rotation: products[0].rotation, products }));
      }
    } catch (error) {
      this.free();
      throw error;
    }
  }

  run(): void {
    for (const call of this.#calls) call.run();
  }

  free(): void {
    for (const call of this.#calls.splice(0)) call.free();
  }
}

/** `forwardLayer` of one token. */
export class TokenLayer {
  readonly #backend: Backend;
  readonly #config: ModelConfig;
  readonly #layer: LayerWeights;
  readonly #workspace: Workspace;
  readonly #steps: Readonly<Record<"qkv" | "o" | "gateUp" | "down", SharedInput>>;

  /** The layer's matrices must be coded (`areCoded`). */
  constructor(
    backend: Backend,
    config: ModelConfig,
    layer: LayerWeights,
    workspace: Workspace,
    hidden: Buffer,
  ) {
    const { query, key, value, attended, gate, up } = workspace;
    const epsilon = config.rmsNormEpsilon;
    const made: SharedInput[] = [];
    const share = (input: Input, ...targets: Target[]) => {
      const shared = new SharedInput(backend, input, targets);
      made.push(shared);
      return shared;
    };
    this.#backend = backend;
    this.#config = config;
    this.#layer = layer;
    this.#workspace = workspace;
    try {
      this.#steps = {
        qkv: share(
          { x: hidden, norm: { weight: layer.inputNorm, epsilon } },
          { linear: layer.q, y: query },
          { linear: layer.k, y: key },
          { linear: layer.v, y: value },
        ),
        o: share({ x: attended, accumulate: true }, { linear: layer.o, y: hidden }),
        gateUp: share(
          { x: hidden, norm: { weight: layer.postAttentionNorm, epsilon } },
          { linear: layer.gate, y: gate },
          { linear: layer.up, y: up },
        ),
        down: share({ x: gate, up, accumulate: true }, { linear: layer.down, y: hidden }),
      };
    } catch (error) {
      for (const shared of made) shared.free();
      throw error;
    }
  }

  forward({ cache, position, rope }: Pick<ForwardLayerOptions, "cache" | "position" | "rope">): void {
    const { qkv, o, gateUp, down } = this.#steps;
    qkv.run();
    attendOver(this.#backend, this.#config, this.#layer, this.#workspace, {
      tokens: 1,
      cache,
      position,
      rope,
    });
    o.run();
    gateUp.run();
    down.run();
  }

  free(): void {
    for (const shared of Object.values(this.#steps)) shared.free();
  }
}
