/**
 * Weights of a model that knows nothing yet: matrices normal with deviation 0.02, those that add to the residual
 * stream divided by the root of the additions (2 a layer), norms 1 and biases 0 (Radford et al. 2019, GPT-2,
 * section 2.3).
 */
import type { ModelConfig } from "../checkpoint/config.js";
import { expectedTensors } from "../checkpoint/tensors.js";
import type { Random } from "../random.js";

const DEVIATION = 0.02;

/** Every tensor by its Hugging Face name, in the order of the forward pass; the same for the same seed. */
export function* initialTensors(
  config: ModelConfig,
  random: Random,
): Generator<readonly [name: string, values: Float32Array]> {
  for (const [name, shape] of expectedTensors(config)) {
    const length = shape.reduce((a, b) => a * b, 1);
    if (/norm\.weight$/.test(name)) yield [name, new Float32Array(length).fill(1)];
    else if (name.endsWith(".bias")) yield [name, new Float32Array(length)];
    else {
      const adds = /\.(o_proj|down_proj)\.weight$/.test(name);
      const deviation = adds ? DEVIATION / Math.sqrt(2 * config.layers) : DEVIATION;
      yield [name, Float32Array.from({ length }, () => deviation * random.normal())];
    }
  }
}
