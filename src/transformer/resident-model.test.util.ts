/** A model of which every tensor can be trained, all of it on one backend, for tests of gradients. */
import assert from "node:assert/strict";
import type { ModelConfig } from "../checkpoint/config.js";
import type { Backend, Buffer } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import type { TrainingBackend } from "../compute/training.js";
import type { LayerGradient, TrainableLayer } from "./layer-backward.js";
import { type BackwardOptions, ModelBackward, type TrainableModel } from "./model-backward.js";
import { TransformerSession } from "./session.js";
import { freeWeights, layerLinears, layerNorms, loadWeights, type ModelWeights } from "./weights.js";

export type Tensors = ReadonlyMap<string, Float32Array>;
export type Loss = BackwardOptions["loss"];

export interface Machine {
  readonly backend: Backend;
  readonly training: TrainingBackend;
}

/** A model that stays on the backend, with a buffer for the gradient of each tensor that is trained. */
export class ResidentModel implements TrainableModel {
  readonly config: ModelConfig;
  readonly embedding: DenseLinear;
  readonly head: DenseLinear;
  readonly finalNorm: Buffer;
  readonly gradient: TrainableModel["gradient"];
  /** What was opened (+) and closed (-), in order. */
  readonly log: string[] = [];
  /** Called after each entry of the log. */
  logged: (entry: string) => void = () => {};

  private constructor(
    readonly machine: Machine,
    readonly weights: ModelWeights,
    /** The tensors and their gradients, by Hugging Face name. */
    readonly parameters: ReadonlyMap<string, Buffer>,
    readonly gradients: ReadonlyMap<string, Buffer>,
    /** Gradients of the row factors of trained matrices, by name without ".weight". */
    readonly rowFactors: ReadonlyMap<string, Buffer>,
  ) {
    this.config = weights.config;
    this.embedding = weights.embedding as DenseLinear;
    this.head = weights.head as DenseLinear;
    this.finalNorm = weights.finalNorm;
    this.gradient = {
      embedding: this.#gradientOf("model.embed_tokens"),
      head: this.#gradientOf("lm_head"),
      finalNorm: gradients.get("model.norm.weight"),
    };
  }

  static async create(
    machine: Machine,
    config: ModelConfig,
    tensors: Tensors,
    trained = [...tensors.keys()],
  ) {
    const { backend } = machine;
    const parameters = new Map<string, Buffer>();
    const upload = (name: string) => {
      const data = tensors.get(name)!;
      const buffer = backend.allocate(data.length);
      backend.write(buffer, data);
      parameters.set(name, buffer);
      return buffer;
    };
    const weights = await loadWeights(backend, config, {
      linear: async ({ name, outputs, inputs, bias }) =>
        new DenseLinear(
          backend,
          outputs,
          inputs,
          upload(`${name}.weight`),
          bias ? upload(`${name}.bias`) : undefined,
        ),
      vector: async (name) => tensors.get(name)!,
    });
    parameters.set("model.norm.weight", weights.finalNorm);
    for (const [index, layer] of weights.layers.entries())
      for (const [key, name] of Object.entries(layerNorms(config, index)))
        parameters.set(name, layer[key as keyof ReturnType<typeof layerNorms>]!);
    assert.deepEqual([...parameters.keys()].sort(), [...tensors.keys()].sort());
    const gradients = new Map(trained.map((name) => [name, backend.allocate(tensors.get(name)!.length)]));
    const matrices = trained.filter((name) => /(proj|embed_tokens|lm_head)\.weight$/.test(name));
    const rowFactors = new Map(
      matrices.map((name) => {
        const inputs = /down_proj/.test(name) ? config.intermediateSize : config.hiddenSize;
        const columns = /o_proj/.test(name) ? config.heads * config.headSize : inputs;
        const rows = tensors.get(name)!.length / columns;
        return [name.replace(/\.weight$/, ""), backend.allocate(rows)];
      }),
    );
    return new ResidentModel(machine, weights, parameters, gradients, rowFactors);
  }

  #gradientOf(name: string) {
    const [weight, bias] = [this.gradients.get(`${name}.weight`), this.gradients.get(`${name}.bias`)];
    return { weight, bias, rowFactor: this.rowFactors.get(name) };
  }

  /** Of the last `gradientsOf`. */
  async rowFactorGradients(): Promise<Tensors> {
    const { backend } = this.machine;
    const entries = [...this.rowFactors].map(
      async ([name, buffer]) => [name, await backend.read(buffer)] as const,
    );
    return new Map(await Promise.all(entries));
  }

  async openLayer(index: number, pass: string) {
    this.#note(`+${pass} ${index}`);
    const linears = Object.entries(layerLinears(this.config, index)).map(([key, { name }]) => [
      key,
      this.#gradientOf(name),
    ]);
    const norms = Object.entries(layerNorms(this.config, index)).map(([key, name]) => [
      key,
      this.gradients.get(name),
    ]);
    const gradient: LayerGradient = { ...Object.fromEntries(norms), linears: Object.fromEntries(linears) };
    return { layer: this.weights.layers[index] as TrainableLayer, gradient };
  }

  async closeLayer(index: number, pass: string): Promise<void> {
    this.#note(`-${pass} ${index}`);
  }

  #note(entry: string): void {
    this.log.push(entry);
    this.logged(entry);
  }

  /** Logits of a window by a session, [tokens, vocabularySize]. */
  async logits(ids: Int32Array): Promise<Float32Array> {
    const session = new TransformerSession(this.machine.backend, this.weights, ids.length);
    const logits = await session.forward(ids, { logits: "all" });
    session.free();
    return logits;
  }

  /** The gradients of a loss over windows, in new buffers of the batch's size or in those of `backward`. */
  async gradientsOf(windows: readonly Int32Array[], loss: Loss, backward?: ModelBackward): Promise<Tensors> {
    const { backend, training } = this.machine;
    for (const gradient of [...this.gradients.values(), ...this.rowFactors.values()])
      training.zero(gradient, gradient.length);
    const longest = Math.max(...windows.map((ids) => ids.length));
    const run = backward ?? new ModelBackward(backend, training, this.config, windows.length, longest);
    await run.run(this, { windows, loss });
    if (!backward) run.free();
    const entries = [...this.gradients].map(
      async ([name, gradient]) => [name, await backend.read(gradient)] as const,
    );
    return new Map(await Promise.all(entries));
  }

  free(): void {
    freeWeights(this.machine.backend, this.weights);
    for (const gradient of [...this.gradients.values(), ...this.rowFactors.values()])
      this.machine.backend.free(gradient);
  }
}

/** The id after each position of a window, -1 after its last. */
export function targetsOf(ids: Int32Array, from: number, tokens: number): Int32Array {
  return Int32Array.from({ length: tokens }, (_, t) => ids[from + t + 1] ?? -1);
}

/** Next-token loss, summed over all windows. */
export function nextToken(
  { backend, training }: Machine,
  windows: readonly Int32Array[],
  columns: number,
): Loss {
  return ({ window, from, tokens: rows, logits }) => {
    const loss = backend.allocate(rows);
    const targets = targetsOf(windows[window], from, rows);
    training.crossEntropy({ logits, targets, loss, rows, columns, scale: 1 });
    backend.free(loss);
  };
}
