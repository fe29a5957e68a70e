import type { ServedModel } from "./api.js";

/** "26.9 MB instead of 269 MB in 16 bits, 10.0 times smaller"; empty where the server does not say. */
export function sizeText(model: ServedModel | null): string {
  if (!model?.weight_bytes || !model.bytes_16bit) return "";
  const { weight_bytes: bytes, bytes_16bit: original } = model;
  return `${megabytes(bytes)} instead of ${megabytes(original)} in 16 bits, ${(original / bytes).toFixed(1)} times smaller`;
}

function megabytes(bytes: number): string {
  const mb = bytes / 1e6;
  return `${mb < 10 ? mb.toFixed(2) : mb < 100 ? mb.toFixed(1) : mb.toFixed(0)} MB`;
}
