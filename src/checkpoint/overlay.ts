/** A checkpoint some of whose tensors have other values: an adapter merged in, or training for what is coded already. */
import type { Checkpoint } from "./checkpoint.js";

/** `checkpoint` with another `read` and `close`. */
export function overlay(
  checkpoint: Checkpoint,
  { read, close }: Pick<Checkpoint, "read" | "close">,
): Checkpoint {
  const { source, format, config, tensors, huggingFaceConfig, generationConfig, bytes16 } = checkpoint;
  return {
    ...{ source, format, config, tensors, huggingFaceConfig, generationConfig, bytes16, read, close },
    tokenizer: () => checkpoint.tokenizer(),
    hash: (signal) => checkpoint.hash(signal),
  };
}
