/**
 * The weights of a PocketLLM folder as Linears: coded matrices stay coded, tensors stored as they are are f32, and
 * an adapter stays beside them.
 */
import type { Backend } from "../compute/backend.js";
import { DenseLinear } from "../compute/linear.js";
import type { PocketFolder } from "../container/folder.js";
import { codedLinear } from "../container/linear.js";
import type { WeightSource } from "../transformer/weights.js";
import { withAdapter } from "./adapted-weights.js";

export async function folderSource(backend: Backend, folder: PocketFolder): Promise<WeightSource> {
  const adapter = await folder.adapter();
  const source = storedSource(backend, folder);
  return adapter ? withAdapter(backend, source, adapter) : source;
}

function storedSource(backend: Backend, folder: PocketFolder): WeightSource {
  return {
    async linear({ name, outputs, inputs, bias }) {
      const values = bias ? await folder.plain(`${name}.bias`) : undefined;
      if (folder.layers.has(name)) return codedLinear(backend, await folder.coded(name), values, name);
      return new DenseLinear(backend, outputs, inputs, await folder.plain(`${name}.weight`), values);
    },
    vector: (name) => folder.plain(name),
  };
}
