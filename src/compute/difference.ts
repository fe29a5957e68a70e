/** out = a - b over `length`, in the operations that every backend has; out may be b. */
import type { Backend, Buffer } from "./backend.js";
import type { TrainingBackend } from "./training.js";

export function difference(
  backend: Backend,
  training: TrainingBackend,
  {
    a,
    b,
    out,
    length,
  }: { readonly a: Buffer; readonly b: Buffer; readonly out: Buffer; readonly length: number },
): void {
  if (out !== b) backend.copy(b, 0, out, 0, length);
  training.scale(out, -1, length);
  backend.add(out, a, length);
}
