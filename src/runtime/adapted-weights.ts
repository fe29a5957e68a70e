/** Weights with an adapter over them, unmerged. */
import type { Adapter } from "../adapter/adapter.js";
import {
  AdaptedLinear,
  AdapterScratch,
  type LowRankPair,
  type UploadedPair,
} from "../compute/adapted-linear.js";
import type { Backend } from "../compute/backend.js";
import { upload } from "../compute/upload.js";
import type { WeightSource } from "../transformer/weights.js";

/** `source` with what the adapter adds. */
export function withAdapter(
  backend: Backend,
  source: WeightSource,
  { pairs, scale }: Pick<Adapter, "pairs" | "scale">,
): WeightSource {
  const scratch = new AdapterScratch(backend);
  return {
    async linear(spec) {
      const linear = await source.linear(spec);
      const pair = pairs.get(spec.name);
      return pair ? new AdaptedLinear(backend, linear, uploaded(backend, pair, scale), scratch) : linear;
    },
    vector: (name) => source.vector(name),
  };
}

function uploaded(backend: Backend, { rank, a, b }: LowRankPair, scale: number): UploadedPair {
  const sb = b.map((x) => scale * x);
  return { rank, a: upload(backend, a), sb: upload(backend, sb) };
}
